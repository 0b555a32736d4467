use serde_json::{Value, json};

use super::Template;

fn image() -> Value {
    json!({
        "Id": "sha256:abc",
        "Size": 1234,
        "Comment": "two\nlines \u{1b}[2J",
        "RepoTags": ["nginx:latest", "web:1"],
        "RepoDigests": [],
        "RootFS": { "Type": "layers", "Layers": ["sha256:1", "sha256:2"] },
        "Config": { "Env": ["A=1", "B=2"], "Labels": { "k": "v", "n": "w" }, "Volumes": null },
    })
}

fn render(template: &str) -> Result<String, String> {
    Template::parse(template)?.render(&image())
}

#[test]
fn templates_print_what_go_prints() {
    for (template, expected) in [
        ("{{.Id}}", "sha256:abc"),
        ("{{ .Size }} bytes", "1234 bytes"),
        ("{{.RootFS.Layers}}", "[sha256:1 sha256:2]"),
        ("{{.Config.Labels}}", "map[k:v n:w]"),
        ("{{json .RootFS}}", r#"{"Layers":["sha256:1","sha256:2"],"Type":"layers"}"#),
        ("{{.RepoTags | json}}", r#"["nginx:latest","web:1"]"#),
        ("{{join .Config.Env \",\"}}", "A=1,B=2"),
        (r#"{{join .Config.Env "\n"}}"#, "A=1\nB=2"),
        ("{{len .RootFS.Layers}} {{len .RepoDigests}} {{len .Config.Volumes}}", "2 0 0"),
        ("{{range .RepoTags}}{{.}};{{end}}", "nginx:latest;web:1;"),
        ("{{range .RepoTags}}{{println .}}{{end}}", "nginx:latest\nweb:1\n"),
        (
            "{{range $i, $tag := .RepoTags}}{{$i}}={{$tag}} {{$.Id}} {{end}}",
            "0=nginx:latest sha256:abc 1=web:1 sha256:abc ",
        ),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}},{{end}}", "k=v,n=w,"),
        ("{{range .RepoDigests}}x{{else}}none{{end}}", "none"),
        ("{{if .RepoDigests}}yes{{else if .RepoTags}}tags{{else}}no{{end}}", "tags"),
        ("{{with .Config}}{{index .Env 1}}{{end}}", "B=2"),
        (r#"{{index .Config.Labels "k"}}{{index .Config.Labels "none"}}"#, "v"),
        ("{{index .RepoTags 0 | upper}}", "NGINX:LATEST"),
        ("{{(index .RepoTags 0)}}{{/* a comment */}}", "nginx:latest"),
        (r#"{{index (split .Id ":") 1}}"#, "abc"),
        (r#"{{if and (eq .Id "sha256:abc") (not .RepoDigests)}}same{{end}}"#, "same"),
        ("a {{- .Size -}} b", "a1234b"),
        ("{{.Config.Absent}} {{.Config.Volumes}}", "<no value> <no value>"),
        ("{{`raw \\n`}}\t", "raw \\n\t"),
        (r"{{.Size}}\t{{len .Id}}\n", "1234\t10\n"),
        ("no action", "no action"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn foreign_values_cannot_print_control_characters() {
    assert_eq!(render("{{.Comment}}").unwrap(), r"two\nlines \u{1b}[2J");
    assert_eq!(render("{{json .Comment}}").unwrap(), r#""two\nlines \u001b[2J""#);
    assert_eq!(render("\u{1b}\r\n").unwrap(), "\\u{1b}\\r\n");
    let list = json!({ "all": ["a\u{9b}", "b"] });
    let joined = Template::parse(r#"{{join .all "\r"}}"#).unwrap().render(&list).unwrap();
    assert_eq!(joined, r"a\u{9b}\rb");
}

#[test]
fn what_is_not_supported_is_named() {
    for (template, part) in [
        ("{{.Nothing}}", "no field .Nothing, only Comment, Config"),
        ("{{.Id.x}}", "a string has no field .x"),
        ("{{.Id", "no '}}'"),
        ("{{printf \"%s\" .Id}}", "'printf' is not supported; supported are json, join"),
        ("{{define \"x\"}}", "'define' is not supported"),
        ("{{range .Id}}{{end}}", "range cannot iterate over a string"),
        ("{{if .Id}}", "no {{end}}"),
        ("{{end}}", "outside of a block"),
        ("{{index .RepoTags 7}}", "no element 7 of 2"),
        ("{{join .Id}}", "these arguments: a string"),
        ("{{.Id | .Size}}", "only a function"),
        ("{{$x}}", "no variable $x"),
        ("{{\"open}}", "does not end"),
        ("{{ ; }}", "unexpected ';'"),
        ("{{}}{{99999999999999999999}}", "not a whole number"),
    ] {
        let error = render(template).unwrap_err();
        assert!(error.contains(part), "{template}: {error}");
    }
    let deep = format!("{{{{{}.Id{}}}}}", "(".repeat(60), ")".repeat(60));
    assert!(render(&deep).is_err());
    let blocks = "{{if .Id}}".repeat(60) + &"{{end}}".repeat(60);
    assert!(render(&blocks).unwrap_err().contains("more than 50 blocks"));
}
