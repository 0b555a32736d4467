//! A picture as SVG 1.1. It brings its own background, and follows the colour scheme of the
//! viewer.

use std::fmt::Write;

use rpull::printable;

use super::shapes::{ADVANCE, Kind, LINE, Look, Picture, Rectangle, TITLE_LINE, Text};

/// The baseline of a line of text, from its upper edge.
const BASELINE: usize = 11;
const TITLE_BASELINE: usize = 16;

/// Fonts in which a character takes at most [`ADVANCE`] pixels at this size.
const STYLE: &str = "\
text{font:11px 'DejaVu Sans Mono','Liberation Mono',Menlo,Consolas,monospace;fill:#1f2328;\
white-space:pre}
.t{font-size:16px;font-weight:bold}
.s{font-weight:bold}
.d{fill:#59636e}
.b{fill:#fff}
.l{fill:#f2f4f7;stroke:#8c959f}
.i{fill:#dbe9fb;stroke:#4673b0}
@media(prefers-color-scheme:dark){
text{fill:#e6edf3}
.d{fill:#9da7b3}
.b{fill:#0d1117}
.l{fill:#1c2129;stroke:#6e7681}
.i{fill:#12305a;stroke:#5c8fd6}
}
";

/// The share of a colour that hides what is below it, so that text stays readable on it in either
/// colour scheme.
const COLOUR_OPACITY: &str = "0.32";

/// Returns the SVG document of a picture.
pub fn document(picture: &Picture) -> String {
    let Picture { width, height, title, .. } = picture;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n<title>{}</title>\n<style>{STYLE}",
        escape(title)
    );
    for number in 0..picture.colours {
        let colour = colour(number);
        let _ = writeln!(
            svg,
            ".c{number}{{fill:{colour};fill-opacity:{COLOUR_OPACITY};stroke:{colour}}}"
        );
    }
    svg += "</style>\n<rect class=\"b\" width=\"100%\" height=\"100%\"/>\n";
    picture.boxes.iter().for_each(|it| rectangle(&mut svg, it));
    picture.texts.iter().for_each(|it| text(&mut svg, it));
    svg + "</svg>\n"
}

fn rectangle(svg: &mut String, it: &Rectangle) {
    let Rectangle { x, y, width, height, kind } = it;
    let (class, more) = match kind {
        Kind::Image => ("i".to_owned(), " rx=\"8\""),
        Kind::Layer { colour, dashed } => (
            colour.map_or("l".to_owned(), |number| format!("c{number}")),
            if *dashed { " rx=\"2\" stroke-dasharray=\"6 4\"" } else { " rx=\"2\"" },
        ),
    };
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"{more}/>"
    );
}

fn text(svg: &mut String, it: &Text) {
    let (class, baseline) = match it.look {
        Look::Title => (" class=\"t\"", TITLE_BASELINE),
        Look::Plain => ("", BASELINE),
        Look::Strong => (" class=\"s\"", BASELINE),
        Look::Dim => (" class=\"d\"", BASELINE),
    };
    let title = it.title.as_deref().map(|title| format!("<title>{}</title>", escape(title)));
    let _ = writeln!(
        svg,
        "<text{class} x=\"{}\" y=\"{}\">{}{}</text>",
        it.x,
        it.y + baseline,
        title.unwrap_or_default(),
        escape(&it.text)
    );
}

/// Returns `text` as the content of an element (XML 1.0). Control and invisible characters, most of
/// which XML forbids, are escaped as for a terminal.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable::escape(text).chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            // XML 1.0, production 2: not a character.
            '\u{fffe}' | '\u{ffff}' => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// Returns a colour that differs much from those of the numbers before it: hues are a golden angle
/// apart.
fn colour(number: usize) -> String {
    let hue = (number as f64 * 137.508 + 30.0) % 360.0;
    // HSL with a saturation of 0.7 and a lightness of 0.5 (CSS Color 4, 7).
    let channel = |n: f64| {
        let k = (n + hue / 30.0) % 12.0;
        let value = 0.5 - 0.35 * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0);
        (value * 255.0).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(0.0), channel(8.0), channel(4.0))
}

const _: () = assert!(BASELINE < LINE && TITLE_BASELINE < TITLE_LINE && ADVANCE * 10 > 11 * 6);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::layers::picture::draw;
    use crate::commands::layers::tests::{Root, large, small};

    fn picture(root: &Root) -> Picture {
        draw(&root.tree(), "/var/lib/docker")
    }

    #[test]
    fn svg_has_every_id_in_full_and_is_the_same_for_the_same_store() {
        for root in [small(), large()] {
            let svg = document(&picture(&root));
            assert_eq!(svg, document(&picture(&root)));
            let tree = root.tree();
            for layer in &tree.layers {
                for id in [layer.chain_id().to_string(), layer.diff_id().to_string()] {
                    assert!(svg.contains(&id), "{id}");
                }
                assert!(svg.contains(layer.cache_id()));
            }
            for image in &tree.images {
                assert!(svg.contains(&image.id.to_string()));
                assert!(image.names.iter().all(|name| svg.contains(name)), "{image:?}");
            }
        }
    }

    #[test]
    fn hostile_text_is_escaped_in_svg() {
        let root = "</title><script>\u{1b}&\"'\u{ffff}\u{202e}\u{0}";
        let svg = document(&draw(&small().tree(), root));
        let escaped = "&lt;/title&gt;&lt;script&gt;\\u{1b}&amp;&quot;'\u{fffd}\\u{202e}\\u{0}";
        assert!(svg.contains(&format!("<title>Layers of {escaped}</title>")), "{svg}");
        assert!(!svg.contains("<script") && !svg.contains('\u{1b}'));
    }

    #[test]
    fn documentation_shows_this_picture() {
        let svg = document(&picture(&small()));
        let shown = include_str!("../../../docs/layers.svg");
        assert!(svg == shown, "docs/layers.svg has to be:\n{svg}");
    }
}
