use proptest::prelude::*;

use super::*;

fn normal(text: &str) -> String {
    text.parse::<Reference>().unwrap().with_default_tag().0.index_form()
}

fn reason(text: &str) -> Reason {
    text.parse::<Reference>().unwrap_err().reason
}

#[test]
fn five_names_of_one_image_are_one_reference() {
    for name in [
        "nginx",
        "library/nginx",
        "docker.io/nginx",
        "docker.io/library/nginx:latest",
        "index.docker.io/library/nginx:latest",
    ] {
        assert_eq!(normal(name), "index.docker.io/library/nginx:latest", "{name}");
    }
}

#[test]
fn first_part_with_dot_colon_capital_or_localhost_is_a_domain() {
    assert_eq!(normal("localhost/a"), "localhost/a:latest");
    assert_eq!(normal("host:5000/a/b:t"), "host:5000/a/b:t");
    assert_eq!(normal("Host/a"), "Host/a:latest");
    assert_eq!(normal("quay.io/a/b"), "quay.io/a/b:latest");
    assert_eq!(normal("[::1]:5000/a"), "[::1]:5000/a:latest");
    assert_eq!(normal("user/app"), "index.docker.io/user/app:latest");
    // Without a slash there is no domain: this is a name and a tag.
    assert_eq!(normal("host:5000"), "index.docker.io/library/host:5000");
    assert_eq!(normal("localhost"), "index.docker.io/library/localhost:latest");
}

#[test]
fn reference_with_tag_and_digest_keeps_both() {
    let digest = Digest::of(b"");
    let text = format!("nginx:1.27@{digest}");
    let reference: Reference = text.parse().unwrap();
    assert_eq!(reference.tag(), Some("1.27"));
    assert_eq!(reference.digest(), Some(digest));
    assert_eq!(reference.to_string(), text);
    assert_eq!(reference.with_default_tag().0.to_string(), text);
    let by_digest: Reference = format!("nginx@{digest}").parse().unwrap();
    assert_eq!(
        by_digest.with_default_tag(),
        ("nginx@".to_owned() + &digest.to_string()).parse().map(|r| (r, false)).unwrap()
    );
}

#[test]
fn invalid_reference_names_its_invalid_part() {
    assert_eq!(reason(""), Reason::Empty);
    assert_eq!(reason(&"a".repeat(64)), Reason::LooksLikeId);
    assert_eq!(reason("Nginx"), Reason::Uppercase("Nginx".into()));
    assert_eq!(reason("a/b//c"), Reason::Component(String::new()));
    assert_eq!(reason("a..b"), Reason::Component("a..b".into()));
    assert_eq!(reason("a___b"), Reason::Component("a___b".into()));
    assert_eq!(reason("-a"), Reason::Component("-a".into()));
    assert_eq!(reason("host:5000/"), Reason::NoPath);
    assert_eq!(reason("ho_st.x/a"), Reason::Domain("ho_st.x".into()));
    assert_eq!(reason("host:port/a"), Reason::Domain("host:port".into()));
    assert_eq!(reason("a:"), Reason::Tag(String::new()));
    assert_eq!(reason("a:.b"), Reason::Tag(".b".into()));
    assert_eq!(reason(&format!("a:{}", "t".repeat(129))), Reason::Tag("t".repeat(129)));
    assert!(matches!(reason("a@sha256:ab"), Reason::Digest(DigestError::Length(2))));
    assert!(matches!(reason("a@md5:ab"), Reason::Digest(DigestError::Algorithm(_))));
    assert_eq!(reason(&format!("a/{}", "b".repeat(254))), Reason::Long(256));
    assert_eq!(reason("scratch"), Reason::Scratch);
    assert_eq!(reason("sha256:abc"), Reason::AlgorithmName);
}

#[test]
fn reserved_name_with_its_namespace_is_refused() {
    assert_eq!(reason("library/scratch"), Reason::Scratch);
    assert_eq!(reason("docker.io/library/scratch:1"), Reason::Scratch);
    assert_eq!(reason("library/sha256:abc"), Reason::AlgorithmName);
    assert!("host:5000/library/scratch".parse::<Reference>().is_ok());
    assert!("user/scratch".parse::<Reference>().is_ok());
}

proptest! {
    #[test]
    fn printed_reference_parses_to_itself(
        domain in prop::option::of("(localhost|[a-z][a-z0-9]{0,5}\\.[a-z]{2,3}|[A-Z][a-z]{1,4}|\\[::[a-f0-9]{1,4}\\])(:[0-9]{1,5})?"),
        path in "[a-z0-9]{1,6}((_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}((\\.|__|-)[a-z0-9]{1,3}){0,2}){0,3}",
        tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        digest in prop::option::of(any::<[u8; 8]>()),
    ) {
        let mut text = domain.map(|d| d + "/").unwrap_or_default() + &path;
        if let Some(tag) = tag { text += &format!(":{tag}"); }
        if let Some(seed) = digest { text += &format!("@{}", Digest::of(&seed)); }
        let Ok(reference) = text.parse::<Reference>() else {
            prop_assert!(text.contains("scratch") || text.contains("sha256"), "{text}");
            return Ok(());
        };
        prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
        prop_assert_eq!(&reference.canonical().parse::<Reference>().unwrap(), &reference);
        prop_assert_eq!(&reference.index_form().parse::<Reference>().unwrap(), &reference);
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC{0,80}") {
        let _ = text.parse::<Reference>();
        let _ = Query::parse(&text);
    }
}
