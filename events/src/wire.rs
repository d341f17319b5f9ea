//! How events travel from the agent to the server: the spool's records and the relay's conversation.
//!
//! A spool is a file that begins with [`SPOOL_MAGIC`] and the boot clock's milliseconds at offset zero (i64, little endian:
//! several processes write one spool, one after the other, on one axis of time), and then holds records: length (u32,
//! little endian), then that many bytes of JSON (one [`AgentEvent`](crate::AgentEvent)). Records are only ever appended; a
//! torn last record is one that was being written when the agent died and is not served.
//!
//! A conversation is a sequence of frames in both directions: length (u32, little endian, of what follows), one tag byte,
//! body. The server speaks first.
//!
//! ```text
//! server → agent   Hello   { version, build, attempt, after, nonce }
//! agent  → server  Proof   { version, nonce, mac }      mac = HMAC(key, "agent"  ‖ build ‖ attempt ‖ server nonce ‖ agent nonce)
//! server → agent   Answer  { mac }                      mac = HMAC(key, "server" ‖ build ‖ attempt ‖ agent nonce ‖ server nonce)
//! agent  → server  Begin   { now_ms }                   the agent's present offset, for the server's clock
//! agent  → server  Event   raw payload of one record, in order, from `after + 1`
//! both             Beat    every 10 s; silence of 25 s is a broken connection
//! server → agent   Ack     { seq }                      committed up to here
//! server → agent   Release                              the last event is committed: the agent may go
//! ```
//! Both sides prove that they know the build's key and neither sends it: the agent, so that nobody can feed the server a
//! log; the server, so that a RUN step that shares the network cannot read one.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Version of records and conversation. A side that meets a newer one says so and stops.
pub const VERSION: u32 = 1;
pub const SPOOL_MAGIC: &[u8; 8] = b"KIOPSP\x00\x01";
pub const SPOOL_HEADER_BYTES: usize = 16;
/// No record or frame may be longer: one lines event of 256 KiB, at JSON's worst escaping, with room to spare.
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;
pub const BEAT_EVERY_MS: u64 = 10_000;
pub const SILENCE_LIMIT_MS: u64 = 25_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    pub build: String,
    pub attempt: u32,
    pub after: u64,
    pub nonce: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub version: u32,
    pub nonce: String,
    pub mac: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub mac: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The agent's present monotonic offset in milliseconds.
    pub now_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Hello(Hello),
    Proof(Proof),
    Answer(Answer),
    Begin(Begin),
    Event(Vec<u8>),
    Ack(u64),
    Beat,
    Release,
    /// The other side refuses and says why (for the log, never for a person's page).
    Refused(String),
}

#[derive(Debug, PartialEq, Eq)]
pub enum WireError {
    TooLong(usize),
    UnknownTag(u8),
    BadBody(&'static str),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(n) => write!(f, "a frame of {n} bytes is over the limit of {MAX_FRAME_BYTES}"),
            Self::UnknownTag(t) => write!(f, "unknown frame tag {t}"),
            Self::BadBody(what) => write!(f, "the body of a {what} frame cannot be read"),
        }
    }
}

impl std::error::Error for WireError {}

const HELLO: u8 = 1;
const PROOF: u8 = 2;
const ANSWER: u8 = 3;
const BEGIN: u8 = 4;
const EVENT: u8 = 5;
const ACK: u8 = 6;
const BEAT: u8 = 7;
const RELEASE: u8 = 8;
const REFUSED: u8 = 9;

impl Frame {
    /// Appends the frame, with its length in front, to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(h) => put_json(out, HELLO, h),
            Self::Proof(p) => put_json(out, PROOF, p),
            Self::Answer(a) => put_json(out, ANSWER, a),
            Self::Begin(b) => put_json(out, BEGIN, b),
            Self::Event(payload) => put(out, EVENT, payload),
            Self::Ack(seq) => put(out, ACK, &seq.to_le_bytes()),
            Self::Beat => put(out, BEAT, &[]),
            Self::Release => put(out, RELEASE, &[]),
            Self::Refused(why) => put(out, REFUSED, why.as_bytes()),
        }
    }

    /// Takes the first whole frame off `buffer`; `None` when more bytes are needed.
    pub fn decode(buffer: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((body, used)) = split_record(buffer)? else { return Ok(None) };
        let Some((&tag, body)) = body.split_first() else { return Err(WireError::BadBody("empty")) };
        let frame = match tag {
            HELLO => Self::Hello(json(body, "hello")?),
            PROOF => Self::Proof(json(body, "proof")?),
            ANSWER => Self::Answer(json(body, "answer")?),
            BEGIN => Self::Begin(json(body, "begin")?),
            EVENT => Self::Event(body.to_vec()),
            ACK => Self::Ack(u64::from_le_bytes(body.try_into().map_err(|_| WireError::BadBody("ack"))?)),
            BEAT => Self::Beat,
            RELEASE => Self::Release,
            REFUSED => Self::Refused(String::from_utf8_lossy(body).into_owned()),
            other => return Err(WireError::UnknownTag(other)),
        };
        Ok(Some((frame, used)))
    }
}

fn put(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32 + 1).to_le_bytes());
    out.push(tag);
    out.extend_from_slice(body);
}

fn put_json<T: Serialize>(out: &mut Vec<u8>, tag: u8, body: &T) {
    put(out, tag, &serde_json::to_vec(body).unwrap_or_default());
}

fn json<T: for<'a> Deserialize<'a>>(body: &[u8], what: &'static str) -> Result<T, WireError> {
    serde_json::from_slice(body).map_err(|_| WireError::BadBody(what))
}

/// Appends one spool record.
pub fn put_record(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
}

/// The first whole record (or frame) of `buffer` and how many bytes it took; `None` when it is not complete.
pub fn split_record(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, WireError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*head) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(WireError::TooLong(len));
    }
    Ok(buffer.get(4..4 + len).map(|body| (body, 4 + len)))
}

/// Who makes a proof; part of what is signed, so that one side's proof is no proof of the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Agent,
    Server,
}

fn mac(key: &[u8], side: Side, build: &str, attempt: u32, theirs: &str, own: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    let name = match side {
        Side::Agent => "agent",
        Side::Server => "server",
    };
    for part in [name, build, &attempt.to_string(), theirs, own] {
        // The length keeps two different sequences of parts from reading the same.
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part.as_bytes());
    }
    mac
}

/// The proof that `side` gives, over the other's nonce and its own.
pub fn prove(key: &[u8], side: Side, build: &str, attempt: u32, theirs: &str, own: &str) -> String {
    let bytes = mac(key, side, build, attempt, theirs, own).finalize().into_bytes();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Checks `side`'s proof in constant time.
pub fn proven(key: &[u8], side: Side, build: &str, attempt: u32, theirs: &str, own: &str, proof: &str) -> bool {
    let Some(bytes) = (0..proof.len() / 2)
        .map(|i| proof.get(i * 2..i * 2 + 2).and_then(|h| u8::from_str_radix(h, 16).ok()))
        .collect::<Option<Vec<u8>>>()
    else {
        return false;
    };
    proof.len() == 64 && mac(key, side, build, attempt, theirs, own).verify_slice(&bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Hello(Hello { version: 1, build: "b".into(), attempt: 1, after: 7, nonce: "n".into() }),
            Frame::Proof(Proof { version: 1, nonce: "m".into(), mac: "00".into() }),
            Frame::Answer(Answer { mac: "ff".into() }),
            Frame::Begin(Begin { now_ms: 12 }),
            Frame::Event(b"{}".to_vec()),
            Frame::Event(vec![]),
            Frame::Ack(9),
            Frame::Beat,
            Frame::Release,
            Frame::Refused("no".into()),
        ]
    }

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let mut stream = Vec::new();
        frames().iter().for_each(|f| f.encode(&mut stream));
        for step in [1, 3, 7, stream.len()] {
            let (mut buffer, mut seen) = (Vec::new(), Vec::new());
            for piece in stream.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some((frame, used)) = Frame::decode(&buffer).unwrap() {
                    seen.push(frame);
                    buffer.drain(..used);
                }
            }
            assert_eq!(seen, frames());
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn bad_input_is_refused_and_never_trusted_for_its_length() {
        assert_eq!(Frame::decode(&u32::MAX.to_le_bytes()), Err(WireError::TooLong(u32::MAX as usize)));
        assert_eq!(Frame::decode(&[0, 0, 0, 0]), Err(WireError::BadBody("empty")));
        assert_eq!(Frame::decode(&[1, 0, 0, 0, 200]), Err(WireError::UnknownTag(200)));
        assert_eq!(Frame::decode(&[3, 0, 0, 0, ACK, 1, 2]), Err(WireError::BadBody("ack")));
        assert_eq!(Frame::decode(&[2, 0, 0, 0, HELLO, b'x']), Err(WireError::BadBody("hello")));
    }

    #[test]
    fn a_proof_holds_for_its_side_build_and_nonces_only() {
        let key = b"key";
        let good = prove(key, Side::Agent, "b1", 1, "sn", "an");
        assert!(proven(key, Side::Agent, "b1", 1, "sn", "an", &good));
        assert!(!proven(b"other", Side::Agent, "b1", 1, "sn", "an", &good));
        assert!(!proven(key, Side::Server, "b1", 1, "sn", "an", &good));
        assert!(!proven(key, Side::Agent, "b2", 1, "sn", "an", &good));
        assert!(!proven(key, Side::Agent, "b1", 2, "sn", "an", &good));
        assert!(!proven(key, Side::Agent, "b1", 1, "an", "sn", &good));
        assert!(!proven(key, Side::Agent, "b1", 1, "sn", "an", ""));
        assert!(!proven(key, Side::Agent, "b1", 1, "sn", "an", &"é".repeat(32)));
    }
}
