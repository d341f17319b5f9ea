//! The relay: serves the spool to whoever proves to know the build's key.
//!
//! Holds the conversation of [`kiops_events::wire`] over any stream of bytes, so a Unix socket on one machine and a
//! loopback port in a Pod are the same to it. Reads the spool's file only: it knows nothing of the build, and the process
//! that writes may be another one, or dead.

use crate::growth::Growth;
use crate::spool::{Clock, Reader};
use kiops_events::wire::{
    Answer, BEAT_EVERY_MS, Begin, Frame, Hello, Proof, SILENCE_LIMIT_MS, Side, VERSION, WireError, prove, proven,
};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};

/// How many bytes are sent at once while there are more.
const BATCH_BYTES: usize = 1024 * 1024;
/// Who connects must have proven itself by then.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// No frame of the server's is longer; before it has proven itself it gets no more memory than this.
const MAX_INCOMING_BYTES: usize = 16 * 1024;
/// Connections at once. More than one only while a server has not noticed that its last one is dead.
const MAX_CONNECTIONS: usize = 16;

/// What the relay serves, and what it has been told.
pub struct Relay {
    pub spool: PathBuf,
    pub build: String,
    pub attempt: u32,
    pub key: Vec<u8>,
    pub clock: Clock,
    pub told: Told,
}

/// What servers have said so far.
pub struct Told {
    acked: AtomicU64,
    released: watch::Sender<bool>,
    heard: Mutex<Instant>,
    connections: Semaphore,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            acked: AtomicU64::new(0),
            released: watch::Sender::new(false),
            heard: Mutex::new(Instant::now()),
            connections: Semaphore::new(MAX_CONNECTIONS),
        }
    }
}

impl Told {
    /// Number of the last event that the server has committed.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until the server says that it needs nothing more, or until `hold` has passed without a word from any server.
    /// True when it was released.
    pub async fn released_within(&self, hold: Duration) -> bool {
        let begin = Instant::now();
        let mut released = self.released.subscribe();
        loop {
            let quiet = self.heard.lock().unwrap_or_else(PoisonError::into_inner).max(begin).elapsed();
            let Some(left) = hold.checked_sub(quiet).filter(|left| !left.is_zero()) else { return false };
            if tokio::time::timeout(left, released.wait_for(|r| *r)).await.is_ok() {
                return true;
            }
        }
    }

    /// How long no server has said a word.
    pub fn silent_for(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn hear(&self, frame: &Frame) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match frame {
            Frame::Ack(seq) => {
                self.acked.fetch_max(*seq, Ordering::Relaxed);
            }
            Frame::Release => {
                self.released.send_replace(true);
            }
            _ => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("refused: {0}")]
    Refused(&'static str),
    #[error("the other side is silent")]
    Silent,
    #[error("the other side said something out of turn")]
    OutOfTurn,
    #[error("the other side has closed the connection")]
    Closed,
}

impl Relay {
    /// Holds one conversation to its end. Returns without an error when the server has released the agent.
    pub async fn serve<S: AsyncRead + AsyncWrite>(&self, stream: S) -> Result<(), RelayError> {
        let Ok(_permit) = self.told.connections.try_acquire() else {
            return Err(RelayError::Refused("too many connections"));
        };
        let (input, mut output) = tokio::io::split(stream);
        let growth = Growth::of(&self.spool);
        let mut input = Incoming { input, buffer: Vec::new(), scratch: vec![0; 4096] };
        let greeting = self.greet(&mut input, &mut output);
        let reader = match tokio::time::timeout(HANDSHAKE_LIMIT, greeting).await {
            Err(_) => return Err(RelayError::Silent),
            Ok(Err(RelayError::Refused(why))) => {
                let mut frame = Vec::new();
                Frame::Refused(why.to_owned()).encode(&mut frame);
                output.write_all(&frame).await?;
                output.shutdown().await?;
                return Err(RelayError::Refused(why));
            }
            Ok(reader) => reader?,
        };
        tokio::select! {
            listened = self.listen(&mut input) => listened,
            sent = send(reader, growth, &mut output) => sent.map_err(Into::into),
        }
    }

    /// Both sides prove that they know the key; gives back the spool, at the place where the server goes on.
    async fn greet<R, W>(&self, input: &mut Incoming<R>, output: &mut W) -> Result<Reader, RelayError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Frame::Hello(Hello { version, build, attempt, after, nonce: theirs }) = input.next().await? else {
            return Err(RelayError::OutOfTurn);
        };
        if version > VERSION {
            return Err(RelayError::Refused("this agent speaks an older version"));
        }
        if (build.as_str(), attempt) != (self.build.as_str(), self.attempt) {
            return Err(RelayError::Refused("this is another build's agent"));
        }
        let own = nonce()?;
        let mut frames = Vec::new();
        let mac = prove(&self.key, Side::Agent, &build, attempt, &theirs, &own);
        Frame::Proof(Proof { version: VERSION, nonce: own.clone(), mac }).encode(&mut frames);
        output.write_all(&frames).await?;
        output.flush().await?;
        let Frame::Answer(Answer { mac }) = input.next().await? else { return Err(RelayError::OutOfTurn) };
        if !proven(&self.key, Side::Server, &build, attempt, &own, &theirs, &mac) {
            return Err(RelayError::Refused("the proof is wrong"));
        }
        let mut reader = Reader::open(&self.spool)?;
        if !reader.skip(after)? {
            return Err(RelayError::Refused("the spool is shorter than that"));
        }
        frames.clear();
        Frame::Begin(Begin { now_ms: self.clock.now_ms() }).encode(&mut frames);
        output.write_all(&frames).await?;
        Ok(reader)
    }

    async fn listen<R: AsyncRead + Unpin>(&self, input: &mut Incoming<R>) -> Result<(), RelayError> {
        let silence = Duration::from_millis(SILENCE_LIMIT_MS);
        loop {
            let frame = tokio::time::timeout(silence, input.next()).await.map_err(|_| RelayError::Silent)??;
            self.told.hear(&frame);
            match frame {
                Frame::Release => return Ok(()),
                Frame::Ack(_) | Frame::Beat => {}
                _ => return Err(RelayError::OutOfTurn),
            }
        }
    }
}

/// Sends what is in the spool and what comes into it, and a sign of life where nothing comes.
async fn send<W: AsyncWrite + Unpin>(mut reader: Reader, mut growth: Growth, output: &mut W) -> io::Result<()> {
    let beat_every = Duration::from_millis(BEAT_EVERY_MS);
    let mut last = Instant::now();
    let mut batch = Vec::new();
    loop {
        batch.clear();
        let left = beat_every.saturating_sub(last.elapsed());
        if reader.frames(&mut batch, BATCH_BYTES)? > 0 {
            growth.seen();
        } else if left.is_zero() {
            Frame::Beat.encode(&mut batch);
        } else {
            growth.within(left).await;
            continue;
        }
        output.write_all(&batch).await?;
        output.flush().await?;
        last = Instant::now();
    }
}

fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

/// Frames off a stream.
struct Incoming<R> {
    input: R,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    async fn next(&mut self) -> Result<Frame, RelayError> {
        loop {
            if let Some((frame, used)) = Frame::decode(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(frame);
            }
            if self.buffer.len() > MAX_INCOMING_BYTES {
                return Err(WireError::TooLong(self.buffer.len()).into());
            }
            let got = self.input.read(&mut self.scratch).await?;
            if got == 0 {
                return Err(RelayError::Closed);
            }
            self.buffer.extend_from_slice(&self.scratch[..got]);
        }
    }
}

/// Where servers connect.
pub trait Listener: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Stream> {
        Ok(Self::accept(self).await?.0)
    }
}

impl Listener for tokio::net::TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Self::Stream> {
        let (stream, _) = Self::accept(self).await?;
        // A single line is not to wait for more.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Serves every connection that comes, for as long as the future is polled.
pub async fn serve(relay: Arc<Relay>, listener: impl Listener) {
    loop {
        match Listener::accept(&listener).await {
            Ok(stream) => {
                let relay = relay.clone();
                tokio::spawn(async move { log_end(relay.serve(stream).await) });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn log_end(end: Result<(), RelayError>) {
    match end {
        Ok(()) => tracing::info!("the server has released this agent"),
        Err(error) => tracing::info!(%error, "a connection ended"),
    }
}
