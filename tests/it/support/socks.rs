//! A SOCKS5 proxy (RFC 1928, RFC 1929) that leads every connection to the shared registry.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::hub::Hub;

pub struct Socks {
    /// `127.0.0.1:PORT`.
    pub host: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Socks {
    /// A proxy that wants this user and password, if any.
    pub fn start(login: Option<(&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("a port").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let log = log.clone();
                // A client that goes away in the middle is the client's business.
                std::thread::spawn(move || drop(serve(client, login, &log)));
            }
        });
        Self { host, seen }
    }

    /// The destinations so far, `name:port` or `address:port`.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("the log").clone()
    }
}

fn serve(
    mut client: TcpStream,
    login: Option<(&str, &str)>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let [_version, methods] = take(&mut client)?;
    bytes(&mut client, methods)?;
    client.write_all(&[5, if login.is_some() { 2 } else { 0 }])?;
    if let Some((user, password)) = login {
        let [_version, length] = take(&mut client)?;
        let name = bytes(&mut client, length)?;
        let [length] = take(&mut client)?;
        let right = name == user.as_bytes() && bytes(&mut client, length)? == password.as_bytes();
        client.write_all(&[1, u8::from(!right)])?;
        if !right {
            return Ok(());
        }
    }
    let [_version, _connect, _reserved, kind] = take(&mut client)?;
    let name = match kind {
        1 => Ipv4Addr::from(take::<4>(&mut client)?).to_string(),
        _ => {
            let [length] = take(&mut client)?;
            String::from_utf8_lossy(&bytes(&mut client, length)?).into_owned()
        }
    };
    let port = u16::from_be_bytes(take(&mut client)?);
    log.lock().expect("the log").push(format!("{name}:{port}"));
    let registry = TcpStream::connect(&Hub::shared().host)?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    let (mut up, mut from) = (registry.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut up));
    std::io::copy(&mut &registry, &mut client).map(drop)
}

fn take<const N: usize>(client: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut taken = [0; N];
    client.read_exact(&mut taken)?;
    Ok(taken)
}

fn bytes(client: &mut TcpStream, length: u8) -> std::io::Result<Vec<u8>> {
    let mut taken = vec![0; length.into()];
    client.read_exact(&mut taken)?;
    Ok(taken)
}
