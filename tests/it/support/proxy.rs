//! A way to the shared registry that counts what passes and breaks what it is told to.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::hub::Hub;

/// What happens to one answer.
#[derive(Clone)]
pub enum Fault {
    None,
    /// Its body stops after so many bytes and the line stays open.
    Stall(usize),
    /// Its body stops after so many bytes and the line closes.
    Cut(usize),
    /// Its body stops after so many bytes, all connections close, and more are refused until the
    /// test calls [`Proxy::rise`].
    Fall(usize),
    /// Its body comes at so many bytes a second.
    Slow(usize),
    /// The same, whole, whatever part was asked for.
    SlowWhole(usize),
    /// The request's body stops after so many bytes and the line closes.
    Drop(usize),
    /// Another answer: the status line without `HTTP/1.1`, more header lines, the body.
    Instead(&'static str, &'static str, &'static str),
}

/// Decides by method and path.
type Rule = dyn Fn(&str, &str) -> Fault + Send + Sync;

pub struct Proxy {
    /// `127.0.0.1:PORT`.
    pub host: String,
    log: Arc<Mutex<Log>>,
    door: Arc<Door>,
}

#[derive(Default)]
struct Log {
    requests: Vec<Seen>,
    /// The paths of answers under way.
    open: Vec<String>,
}

/// A request that passed.
#[derive(Clone)]
struct Seen {
    /// `METHOD path`.
    line: String,
    /// The `Range` header.
    range: Option<String>,
    /// Requests for the same path that were being answered when it came, itself included.
    at_once: usize,
}

impl Proxy {
    /// A way that breaks nothing.
    pub fn plain() -> Self {
        Self::new(|_, _| Fault::None)
    }

    pub fn new(rule: impl Fn(&str, &str) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("a port").to_string();
        let log = Arc::new(Mutex::new(Log::default()));
        let (seen, rule): (_, Arc<Rule>) = (log.clone(), Arc::new(rule));
        let door = Arc::new(Door { address: host.clone(), ..Door::default() });
        let opened = door.clone();
        std::thread::spawn(move || {
            let mut listener = listener;
            loop {
                let Ok((client, _)) = listener.accept() else { continue };
                if opened.has_fallen() {
                    drop((listener, client));
                    listener = opened.reopen();
                    continue;
                }
                opened.clients().extend(client.try_clone());
                let (seen, rule, door) = (seen.clone(), rule.clone(), opened.clone());
                std::thread::spawn(move || {
                    let Ok(connection) = client.try_clone() else { return };
                    // A client that goes away in the middle is the client's business.
                    let _ = serve(client, &seen, &*rule, &door);
                    // The door has it, too. A client that tries TLS waits for this.
                    let _ = connection.shutdown(Shutdown::Both);
                });
            }
        });
        Self { host, log, door }
    }

    /// Accepts connections again.
    pub fn rise(&self) {
        let mut state = self.door.state();
        while *state == State::Falling {
            state = self.door.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state = State::Open;
        self.door.changed.notify_all();
    }

    /// A way where the first requests whose path holds `text` meet `faults`, one each.
    pub fn first(text: impl Into<String>, faults: impl IntoIterator<Item = Fault>) -> Self {
        let text = text.into();
        let left = Mutex::new(faults.into_iter().collect::<VecDeque<_>>());
        Self::new(move |_, path| match path.contains(&text) {
            true => left.lock().expect("the faults").pop_front().unwrap_or(Fault::None),
            false => Fault::None,
        })
    }

    /// A way where every request whose path holds `text` meets `fault`.
    pub fn every(text: &'static str, fault: Fault) -> Self {
        Self::new(move |_, path| if path.contains(text) { fault.clone() } else { Fault::None })
    }

    /// The name of what was pushed, by this way.
    pub fn name(&self, pushed: &str) -> String {
        pushed.replace(&Hub::shared().host, &self.host)
    }

    /// `METHOD path` of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.seen("").into_iter().map(|seen| seen.line).collect()
    }

    /// The `Range` headers of all requests that hold `text`, in order.
    pub fn ranges(&self, text: &str) -> Vec<Option<String>> {
        self.seen(text).into_iter().map(|seen| seen.range).collect()
    }

    /// How many answers to one path that holds `text` were under way at once, at most.
    pub fn most_at_once(&self, text: &str) -> usize {
        self.seen(text).iter().map(|seen| seen.at_once).max().unwrap_or(0)
    }

    fn seen(&self, text: &str) -> Vec<Seen> {
        let log = self.log.lock().expect("the log");
        log.requests.iter().filter(|seen| seen.line.contains(text)).cloned().collect()
    }

    /// How many requests hold `text`.
    pub fn count(&self, text: &str) -> usize {
        self.requests().iter().filter(|request| request.contains(text)).count()
    }

    pub fn forget(&self) {
        self.log.lock().expect("the log").requests.clear();
    }
}

/// The port of a way.
#[derive(Default)]
struct Door {
    address: String,
    state: Mutex<State>,
    changed: Condvar,
    clients: Mutex<Vec<TcpStream>>,
}

#[derive(Default, PartialEq)]
enum State {
    #[default]
    Open,
    /// The port will be closed.
    Falling,
    /// The port is closed.
    Closed,
}

impl Door {
    /// Closes the port.
    fn fall(&self) {
        let mut state = self.state();
        *state = State::Falling;
        // The thread that accepts closes it, after one more connection.
        let _ = TcpStream::connect(&self.address);
        while *state == State::Falling {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the port was closed; it is, when this returns and the caller drops its listener.
    fn has_fallen(&self) -> bool {
        *self.state() == State::Falling
    }

    /// Waits until the port is to be open again.
    fn reopen(&self) -> TcpListener {
        let mut state = self.state();
        *state = State::Closed;
        self.changed.notify_all();
        while *state != State::Open {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        TcpListener::bind(&self.address).expect("the port again")
    }

    /// Ends all connections.
    fn end(&self) {
        self.clients().drain(..).for_each(|client| drop(client.shutdown(Shutdown::Both)));
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection: requests one after the other.
fn serve(client: TcpStream, log: &Mutex<Log>, rule: &Rule, door: &Door) -> std::io::Result<()> {
    let mut requests = BufReader::new(client.try_clone()?);
    let mut client = client;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if requests.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let mut words = head.split(' ');
        let mut word = || words.next().unwrap_or("").to_owned();
        let (method, path) = (word(), word());
        let _open = Open::note(log, &method, &path, &head);
        let fault = rule(&method, &path);
        if let Fault::Instead(status, headers, body) = &fault {
            body_of(&mut requests, &head, usize::MAX)?;
            let length = body.len();
            let body = if method == "HEAD" { "" } else { body };
            let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
            client.write_all(format!("{answer}{body}").as_bytes())?;
            continue;
        }
        if let Fault::SlowWhole(_) = fault {
            let line = |line: &&str| !line.to_ascii_lowercase().starts_with("range:");
            head = head.split_inclusive("\r\n").filter(line).collect();
        }
        let sent = match fault {
            Fault::Drop(n) => body_of(&mut requests, &head, n)?,
            _ => body_of(&mut requests, &head, usize::MAX)?,
        };
        if let Fault::Drop(_) = fault {
            // The registry sees the connection break, too.
            let mut registry = TcpStream::connect(&Hub::shared().host)?;
            registry.write_all(head.as_bytes())?;
            registry.write_all(&sent)?;
            registry.shutdown(Shutdown::Both)?;
            return client.shutdown(Shutdown::Both);
        }
        let (answer, body) = ask(&head, &sent)?;
        client.write_all(&answer)?;
        match fault {
            Fault::Stall(n) => {
                client.write_all(&body[..n.min(body.len())])?;
                std::thread::sleep(Duration::from_secs(60));
                return Ok(());
            }
            Fault::Cut(n) => {
                client.write_all(&body[..n.min(body.len())])?;
                return client.shutdown(Shutdown::Both);
            }
            Fault::Fall(n) => {
                door.fall();
                client.write_all(&body[..n.min(body.len())])?;
                door.end();
                return Ok(());
            }
            Fault::Slow(rate) | Fault::SlowWhole(rate) => {
                for part in body.chunks(rate / 50) {
                    client.write_all(part)?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            _ => client.write_all(&body)?,
        }
    }
}

/// The body of a request, at most `most` bytes of it, as it came.
fn body_of(from: &mut impl BufRead, head: &str, most: usize) -> std::io::Result<Vec<u8>> {
    let lower = head.to_ascii_lowercase();
    let value = |name: &str| Some(lower.split(name).nth(1)?.lines().next()?.trim().to_owned());
    let mut body = Vec::new();
    if let Some(length) = value("\r\ncontent-length:").and_then(|length| length.parse().ok()) {
        let length: u64 = length;
        from.take(length.min(most as u64)).read_to_end(&mut body)?;
    } else if value("\r\ntransfer-encoding:").is_some() {
        while !body.ends_with(b"0\r\n\r\n") && body.len() < most {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                break;
            }
            let size = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            body.extend_from_slice(line.as_bytes());
            from.take(size + 2).read_to_end(&mut body)?;
        }
        body.truncate(most);
    }
    Ok(body)
}

/// An answer under way.
struct Open<'a>(&'a Mutex<Log>, String);

impl<'a> Open<'a> {
    fn note(log: &'a Mutex<Log>, method: &str, path: &str, head: &str) -> Self {
        let range = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("range").then(|| value.to_owned())
        };
        let mut state = log.lock().expect("the log");
        state.open.push(path.to_owned());
        let at_once = state.open.iter().filter(|open| *open == path).count();
        let range = head.lines().find_map(range);
        state.requests.push(Seen { line: format!("{method} {path}"), range, at_once });
        Self(log, path.to_owned())
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock().expect("the log");
        if let Some(at) = state.open.iter().position(|open| *open == self.1) {
            state.open.swap_remove(at);
        }
    }
}

/// The registry's answer: its head, so that the client keeps the line, and its body.
fn ask(head: &str, sent: &[u8]) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let mut registry = TcpStream::connect(&Hub::shared().host)?;
    let closing = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    registry.write_all(closing.as_bytes())?;
    registry.write_all(sent)?;
    let mut answer = Vec::new();
    registry.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |n| n + 4);
    let body = answer.split_off(end);
    let head = String::from_utf8_lossy(&answer).replace("Connection: close\r\n", "");
    Ok((head.into_bytes(), body))
}
