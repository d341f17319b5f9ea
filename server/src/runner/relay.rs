//! The server's side of the conversation with an attempt's relay (`kiops_events::wire`), over any connection.
//!
//! One task owns the connection: it reads frames, parses events and keeps the heartbeat, while whoever follows the build
//! stores what came before. What it hands over is bounded; when the store is slower than the agent, it stops reading.
//! What never enters: what an event means.

use super::RelayIo;
use kiops_app::model::BuildId;
use kiops_events::wire::{
    Answer, BEAT_EVERY_MS, Frame, Hello, SILENCE_LIMIT_MS, Side, VERSION, WireError, prove, proven,
};
use kiops_events::{AgentEvent, EventKind};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How much payload is read ahead of whoever stores it.
pub const BATCH_BYTES: usize = 256 * 1024;
/// Both sides answer from memory: whoever takes longer is not the relay.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const BEAT_EVERY: Duration = Duration::from_millis(BEAT_EVERY_MS);
const SILENCE_LIMIT: Duration = Duration::from_millis(SILENCE_LIMIT_MS);
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Ends like any lost connection: asked again from the last stored number.
    #[error("the connection broke: {0}")]
    Broken(#[from] std::io::Error),
    #[error("nothing was heard for {} s", SILENCE_LIMIT.as_secs())]
    Silent,
    #[error("the relay could not prove that it knows the key")]
    NotProven,
    #[error("the relay refused: {0}")]
    Refused(String),
    #[error("the relay speaks version {0}, this server {VERSION}")]
    Newer(u32),
    #[error("the relay sent what the protocol does not allow: {0}")]
    Protocol(String),
    #[error("event {got} came where {expected} was due")]
    Gap { expected: u64, got: u64 },
}

impl From<WireError> for RelayError {
    fn from(e: WireError) -> Self {
        Self::Protocol(e.to_string())
    }
}

/// One event as it came, with the exact bytes that the hash chain is taken over.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub seq: u64,
    pub offset_ms: i64,
    pub kind: EventKind,
    pub payload: Vec<u8>,
}

/// Whom the server expects at the other end.
#[derive(Clone)]
pub struct Peer {
    pub build: BuildId,
    pub attempt: u32,
    pub key: Vec<u8>,
}

enum Command {
    Ack(u64),
    Release(oneshot::Sender<()>),
}

/// An open conversation. Dropped, it closes the connection; the relay goes on holding the spool.
pub struct Conversation {
    batches: mpsc::Receiver<Result<Vec<Received>, RelayError>>,
    commands: mpsc::UnboundedSender<Command>,
    /// The agent's offset when it answered.
    pub agent_now_ms: i64,
    task: JoinHandle<()>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Conversation {
    /// What came since the last call, at least one event; an error ends the conversation.
    pub async fn next(&mut self) -> Result<Vec<Received>, RelayError> {
        match self.batches.recv().await {
            Some(batch) => batch,
            None => Err(RelayError::Broken(std::io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Everything up to `seq` is committed.
    pub fn ack(&self, seq: u64) {
        // A closed connection shows at the next read.
        let _ = self.commands.send(Command::Ack(seq));
    }

    /// Lets the relay go; returns when that is on its way, or when nobody is there to be told.
    pub async fn release(self) {
        let (told, done) = oneshot::channel();
        if self.commands.send(Command::Release(told)).is_ok() {
            let _ = timeout(Duration::from_secs(2), done).await;
        }
    }
}

/// Holds the handshake and starts reading after `after`.
pub async fn open(io: Box<dyn RelayIo>, peer: &Peer, after: u64) -> Result<Conversation, RelayError> {
    let (read, write) = tokio::io::split(io);
    let mut wire = Wire::new(read, write);
    let agent_now_ms =
        timeout(HANDSHAKE_LIMIT, shake_hands(&mut wire, peer, after)).await.map_err(|_| RelayError::Silent)??;
    let (batch_sender, batches) = mpsc::channel(1);
    let (commands, command_receiver) = mpsc::unbounded_channel();
    let reader = Reader { wire, attempt: peer.attempt, expected: after + 1, pending: Vec::new(), pending_bytes: 0 };
    let task = tokio::spawn(reader.run(batch_sender, command_receiver));
    Ok(Conversation { batches, commands, agent_now_ms, task })
}

async fn shake_hands(wire: &mut Wire, peer: &Peer, after: u64) -> Result<i64, RelayError> {
    let (build, attempt) = (peer.build.as_str(), peer.attempt);
    let own = nonce()?;
    let hello = Hello { version: VERSION, build: build.to_owned(), attempt, after, nonce: own.clone() };
    wire.send(&Frame::Hello(hello)).await?;
    let proof = match wire.receive().await? {
        Frame::Proof(proof) => proof,
        Frame::Refused(why) => return Err(RelayError::Refused(why)),
        other => return Err(unexpected(&other)),
    };
    if proof.version > VERSION {
        return Err(RelayError::Newer(proof.version));
    }
    if !proven(&peer.key, Side::Agent, build, attempt, &own, &proof.nonce, &proof.mac) {
        // Before the server has proved anything itself: a stranger learns no mac to play with.
        return Err(RelayError::NotProven);
    }
    let mac = prove(&peer.key, Side::Server, build, attempt, &proof.nonce, &own);
    wire.send(&Frame::Answer(Answer { mac })).await?;
    match wire.receive().await? {
        Frame::Begin(begin) => Ok(begin.now_ms),
        Frame::Refused(why) => Err(RelayError::Refused(why)),
        other => Err(unexpected(&other)),
    }
}

fn nonce() -> Result<String, RelayError> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| RelayError::Protocol(format!("no randomness: {e}")))?;
    Ok(hex::encode(bytes))
}

fn unexpected(frame: &Frame) -> RelayError {
    let name = match frame {
        Frame::Hello(_) => "hello",
        Frame::Proof(_) => "proof",
        Frame::Answer(_) => "answer",
        Frame::Begin(_) => "begin",
        Frame::Event(_) => "event",
        Frame::Ack(_) => "ack",
        Frame::Beat => "beat",
        Frame::Release => "release",
        Frame::Refused(_) => "refused",
    };
    RelayError::Protocol(format!("a {name} frame at the wrong moment"))
}

/// Frames over bytes.
struct Wire {
    read: ReadHalf<Box<dyn RelayIo>>,
    write: WriteHalf<Box<dyn RelayIo>>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are decoded already.
    used: usize,
}

impl Wire {
    fn new(read: ReadHalf<Box<dyn RelayIo>>, write: WriteHalf<Box<dyn RelayIo>>) -> Self {
        Self { read, write, buffer: Vec::new(), used: 0 }
    }

    async fn send(&mut self, frame: &Frame) -> Result<(), RelayError> {
        let mut bytes = Vec::with_capacity(64);
        frame.encode(&mut bytes);
        // Frames from here are small: a peer that takes none for this long is not there.
        timeout(SILENCE_LIMIT, async {
            self.write.write_all(&bytes).await?;
            self.write.flush().await
        })
        .await
        .map_err(|_| RelayError::Silent)?
        .map_err(RelayError::Broken)
    }

    /// The next frame that is here already.
    fn decode(&mut self) -> Result<Option<Frame>, RelayError> {
        match Frame::decode(&self.buffer[self.used..])? {
            Some((frame, used)) => {
                self.used += used;
                Ok(Some(frame))
            }
            None => {
                self.buffer.drain(..self.used);
                self.used = 0;
                Ok(None)
            }
        }
    }

    /// Reads some more bytes. Dropped before it is ready, nothing is lost.
    async fn fill(&mut self) -> Result<(), RelayError> {
        self.buffer.reserve(READ_BYTES);
        match self.read.read_buf(&mut self.buffer).await? {
            0 => Err(RelayError::Broken(std::io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    async fn receive(&mut self) -> Result<Frame, RelayError> {
        loop {
            if let Some(frame) = self.decode()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }
}

struct Reader {
    wire: Wire,
    attempt: u32,
    expected: u64,
    pending: Vec<Received>,
    pending_bytes: usize,
}

impl Reader {
    async fn run(
        mut self,
        batches: mpsc::Sender<Result<Vec<Received>, RelayError>>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        if let Err(e) = self.talk(&batches, &mut commands).await {
            // What came whole before the connection broke is as good as any.
            if !self.pending.is_empty() && batches.send(Ok(std::mem::take(&mut self.pending))).await.is_err() {
                return;
            }
            let _ = batches.send(Err(e)).await;
        }
    }

    /// Ends without an error when the conversation was released or dropped.
    async fn talk(
        &mut self,
        batches: &mpsc::Sender<Result<Vec<Received>, RelayError>>,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), RelayError> {
        let mut beat = tokio::time::interval_at(Instant::now() + BEAT_EVERY, BEAT_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            self.take_frames()?;
            let full = self.pending_bytes >= BATCH_BYTES;
            tokio::select! {
                // A commit is told before anything else is done: the agent may be waiting for room.
                biased;
                command = commands.recv() => match command {
                    Some(Command::Ack(seq)) => self.wire.send(&Frame::Ack(seq)).await?,
                    Some(Command::Release(told)) => {
                        self.wire.send(&Frame::Release).await?;
                        let _ = self.wire.write.shutdown().await;
                        let _ = told.send(());
                        return Ok(());
                    }
                    None => return Ok(()),
                },
                permit = batches.reserve(), if !self.pending.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    permit.send(Ok(std::mem::take(&mut self.pending)));
                    self.pending_bytes = 0;
                    // While nothing was read, nothing could be heard.
                    heard = Instant::now();
                }
                filled = self.wire.fill(), if !full => {
                    filled?;
                    heard = Instant::now();
                }
                _ = beat.tick() => self.wire.send(&Frame::Beat).await?,
                () = tokio::time::sleep_until(heard + SILENCE_LIMIT), if !full => return Err(RelayError::Silent),
            }
        }
    }

    fn take_frames(&mut self) -> Result<(), RelayError> {
        while self.pending_bytes < BATCH_BYTES {
            match self.wire.decode()? {
                Some(Frame::Event(payload)) => self.take_event(payload)?,
                Some(Frame::Beat) => {}
                Some(Frame::Refused(why)) => return Err(RelayError::Refused(why)),
                Some(other) => return Err(unexpected(&other)),
                None => break,
            }
        }
        Ok(())
    }

    fn take_event(&mut self, payload: Vec<u8>) -> Result<(), RelayError> {
        let event: AgentEvent =
            serde_json::from_slice(&payload).map_err(|e| RelayError::Protocol(format!("an event: {e}")))?;
        if event.attempt != self.attempt {
            return Err(RelayError::Protocol(format!("an event of attempt {}", event.attempt)));
        }
        if event.seq < self.expected {
            // Known already. It is not part of the chain a second time.
            return Ok(());
        }
        if event.seq > self.expected {
            return Err(RelayError::Gap { expected: self.expected, got: event.seq });
        }
        self.expected += 1;
        self.pending_bytes += payload.len();
        self.pending.push(Received { seq: event.seq, offset_ms: event.offset_ms, kind: event.kind, payload });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
