//! What a failed request comes down to, in plain words: the HTTP client's errors name its own layers
//! first and the fact last.

use std::error::Error;
use std::io;

/// How std begins the error of a name that cannot be looked up; the cause follows as text.
const LOOKUP: &str = "failed to lookup address information: ";

/// What glibc and musl say if a name server does not answer.
const NO_NAME_SERVER: &[&str] = &["temporary failure in name resolution", "try again"];

/// Returns the fact behind the error of a request or of its response.
pub fn of_http(error: &reqwest::Error) -> String {
    if error.is_connect() && error.is_timeout() {
        return "timed out while connecting".to_owned();
    }
    of(error)
}

/// Returns the fact behind `error`: the last of its causes, in plain words if it is the system's.
fn of(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    loop {
        let io_error = last.downcast_ref::<io::Error>();
        if let Some(words) = io_error.and_then(of_system) {
            return words;
        }
        // An io::Error passes over the error that it wraps.
        let wrapped = io_error.and_then(io::Error::get_ref).map(|inner| inner as &dyn Error);
        match wrapped.or_else(|| last.source()) {
            Some(next) => last = next,
            None => return last.to_string(),
        }
    }
}

fn of_system(error: &io::Error) -> Option<String> {
    let text = error.to_string();
    if let Some(cause) = text.strip_prefix(LOOKUP) {
        let temporary = NO_NAME_SERVER.contains(&cause.to_ascii_lowercase().as_str());
        return Some(match temporary {
            true => "the name server does not answer".to_owned(),
            false => "no such host".to_owned(),
        });
    }
    let words = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::ConnectionAborted => "connection aborted",
        io::ErrorKind::BrokenPipe => "connection closed",
        io::ErrorKind::HostUnreachable => "no route to the host",
        io::ErrorKind::NetworkUnreachable => "the network is unreachable",
        io::ErrorKind::TimedOut => "timed out",
        _ if error.raw_os_error().is_some() => {
            return Some(text.split(" (os error").next().unwrap_or(&text).to_lowercase());
        }
        _ => return None,
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with a cause, as the HTTP client has many.
    #[derive(Debug)]
    struct Outer(io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("client error (Connect)")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn fact_is_found_below_all_layers() {
        let system = |code| Outer(io::Error::from_raw_os_error(code));
        assert_eq!(of(&system(111)), "connection refused");
        assert_eq!(of(&system(113)), "no route to the host");
        assert_eq!(of(&system(101)), "the network is unreachable");
        assert_eq!(of(&system(24)), "too many open files");
        let wrapped = io::Error::other(Outer(io::Error::other(system(104))));
        assert_eq!(of(&Outer(wrapped)), "connection reset");
        let text = Outer(io::Error::other("end of file before message length reached"));
        assert_eq!(of(&text), "end of file before message length reached");
    }

    #[test]
    fn name_that_does_not_exist_is_told_from_a_name_server_that_is_silent() {
        let lookup = |cause: &str| of(&Outer(io::Error::other(format!("{LOOKUP}{cause}"))));
        for unknown in ["Name or service not known", "Name does not resolve"] {
            assert_eq!(lookup(unknown), "no such host");
        }
        for silent in ["Temporary failure in name resolution", "Try again"] {
            assert_eq!(lookup(silent), "the name server does not answer");
        }
    }
}
