//! Web pages in place of what a registry sends: login pages of networks, and hosts that are not
//! registries.

use reqwest::Response;
use reqwest::header::CONTENT_TYPE;

use super::body::{Body, Peer};
use super::error::RegistryError;
use crate::oci::media_type;

/// Bytes of a page that are read at most.
const MAX_PAGE_SIZE: u64 = 64 << 10;

/// Characters of a page that an error shows at most.
const MAX_WORDS: usize = 80;

/// Elements whose content is not text.
const HIDDEN: &[&str] = &["script", "style"];

/// Returns whether a response is a web page by its content type.
pub fn is_html(content_type: &str) -> bool {
    let essence = media_type::essence(content_type);
    essence.eq_ignore_ascii_case("text/html")
        || essence.eq_ignore_ascii_case("application/xhtml+xml")
}

/// Returns the content type of a response.
pub fn content_type(response: &Response) -> &str {
    let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    header.unwrap_or_default()
}

/// Returns the error of a response that is a web page: `body` begins with a tag, and the content
/// type says so. `None` for anything else, whatever its content type.
pub fn error_of(
    host: &str,
    content_type: &str,
    expected: &'static str,
    body: &[u8],
) -> Option<RegistryError> {
    let is_page = is_html(content_type) && body.trim_ascii_start().starts_with(b"<");
    is_page.then(|| RegistryError::Html {
        host: host.to_owned(),
        content_type: media_type::essence(content_type).to_owned(),
        expected,
        text: words(body),
    })
}

/// Reads the beginning of a response that is a web page, and returns its error.
pub async fn read(
    response: Response,
    peer: &Peer,
    expected: &'static str,
) -> Option<RegistryError> {
    let content_type = content_type(&response).to_owned();
    // A page that does not arrive, or is too large, shows no words.
    let body = Body::new(response, peer).read(MAX_PAGE_SIZE).await;
    let body = body.unwrap_or_else(|_| b"<".as_slice().into());
    error_of(&peer.host, &content_type, expected, &body)
}

/// Returns the title of a page, or else its first words.
pub fn words(body: &[u8]) -> String {
    let page = String::from_utf8_lossy(body);
    let title = element(&page, "title").map(text).filter(|title| !title.is_empty());
    let words = title.unwrap_or_else(|| text(element(&page, "body").unwrap_or(&page)));
    match words.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}…", words[..end].trim_end()),
        None => words,
    }
}

/// Returns the content of the first element `name`. It may lack its end.
fn element<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let lower = page.to_ascii_lowercase();
    let begin = lower.match_indices(&format!("<{name}")).find(|(at, tag)| {
        lower[at + tag.len()..].starts_with(|c: char| c == '>' || c.is_ascii_whitespace())
    });
    let start = begin?.0;
    let start = start + lower[start..].find('>')? + 1;
    let end = lower[start..].find(&format!("</{name}")).map_or(page.len(), |end| start + end);
    Some(&page[start..end])
}

/// Returns the text of a piece of a page in one line, without tags.
fn text(piece: &str) -> String {
    let (mut text, mut rest) = (String::new(), piece);
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        let lower = tag.to_ascii_lowercase();
        let hidden = HIDDEN.iter().find(|name| lower.starts_with(**name));
        rest = match hidden.and_then(|name| lower.find(&format!("</{name}"))) {
            Some(end) => &tag[end..],
            None => tag,
        };
        rest = rest.split_once('>').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    let entities =
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")];
    for (entity, character) in entities {
        text = text.replace(entity, character);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_described_by_its_title_or_its_first_words() {
        let of = |page: &str| words(page.as_bytes());
        let page = "<!DOCTYPE html><html><head><TITLE lang=en>Sign in &amp;\n go</TITLE></head>x";
        assert_eq!(of(page), "Sign in & go");
        let page = "<html><head><style>a{}</style><script>if (a<b) x</script></head>\
                    <body class=x><h1>It works!</h1><p>No page</p></body></html>";
        assert_eq!(of(page), "It works! No page");
        assert_eq!(of("<html><title></title>"), "");
        assert_eq!(of("<"), "");
        assert_eq!(of("<title"), "");
        assert_eq!(of(&format!("<p>{}", "é".repeat(1000))), format!("{}…", "é".repeat(80)));
    }

    #[test]
    fn content_that_is_no_page_is_not_called_one() {
        assert!(error_of("host", "text/html; charset=utf-8", "a manifest", b" <p>").is_some());
        assert!(error_of("host", "text/html", "a manifest", b"{}").is_none());
        assert!(error_of("host", "application/json", "a manifest", b"<p>").is_none());
    }
}
