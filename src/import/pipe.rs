//! A pipe between two threads, for a tar that one writes and the other unpacks.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use crate::layer::LayerError;

/// Bytes of a buffer.
const BUFFER_SIZE: usize = 256 << 10;

/// Buffers on their way at most.
const QUEUE: usize = 2;

type Passed = io::Result<Bytes>;

/// The end that is written to.
pub struct PipeWriter {
    sender: SyncSender<Passed>,
    buffer: Vec<u8>,
}

/// Creates a pipe. It ends for the reader when the writer is finished or dropped.
pub fn pipe() -> (PipeWriter, Receiver<Passed>) {
    let (sender, receiver) = sync_channel(QUEUE);
    (PipeWriter { sender, buffer: Vec::with_capacity(BUFFER_SIZE) }, receiver)
}

impl PipeWriter {
    /// Gives the reader an error in place of more bytes.
    pub fn fail(self, error: LayerError) {
        // A reader that has ended has an error of its own.
        let _ = self.sender.send(Err(io::Error::other(error)));
    }

    fn send(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(BUFFER_SIZE));
        self.sender.send(Ok(full.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(BUFFER_SIZE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..n]);
        if self.buffer.len() == BUFFER_SIZE {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_errors_arrive_in_order() {
        let (mut writer, reader) = pipe();
        let thread = std::thread::spawn(move || {
            writer.write_all(&vec![7; BUFFER_SIZE * 3 + 1]).unwrap();
            writer.flush().unwrap();
            writer.fail(LayerError::Cancelled);
        });
        let sizes: Vec<Option<usize>> =
            reader.iter().map(|it| it.ok().map(|it| it.len())).collect();
        thread.join().unwrap();
        assert_eq!(sizes, [Some(BUFFER_SIZE), Some(BUFFER_SIZE), Some(BUFFER_SIZE), Some(1), None]);
    }

    #[test]
    fn writer_without_a_reader_fails() {
        let (mut writer, reader) = pipe();
        drop(reader);
        writer.write_all(b"x").unwrap();
        assert_eq!(writer.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
