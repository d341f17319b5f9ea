//! How a log lies in the database: pieces without holes, each a framed run of entries. Pure functions over bytes.
//!
//! A piece's body begins with a version byte and an encoding byte. Plain bodies hold the frames as they are; zstd bodies
//! hold the frames' length (u32, little endian) and one zstd frame. A frame is one entry:
//!
//! ```text
//! varint pos       (difference to the entry before; whole for the first)
//! varint attempt
//! varint seq
//! varint at_ms     (zigzag of the difference to the entry before)
//! varint rows
//! varint length    of the payload, then the payload
//! ```
//! Stored pieces outlive the program that wrote them: a change of the format gets a new version byte, and every version
//! that was ever released is read. `testdata/log-v1.hex` keeps this one honest.

use super::LogEntry;

/// What a sealed piece holds, in bytes of payload: enough to compress well, little enough to open for one line.
pub const SEALED_BYTES: usize = 256 * 1024;
/// A batch of this much payload is compressed at once, before anybody waits for a transaction.
pub const SEAL_AT_ONCE_BYTES: usize = 64 * 1024;
/// Open pieces that are sealed whatever they hold: a quiet build must not leave a row per line.
pub const MAX_OPEN_PIECES: i64 = 500;

const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Ingest speed matters more than the last tenth of size.
const LEVEL: i32 = 1;
/// No piece ever holds as much: a corrupt length must not allocate the machine away.
const MAX_FRAMES_BYTES: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogFormatError {
    #[error("a stored log piece has version {0}, which this program does not know")]
    UnknownVersion(u8),
    #[error("a stored log piece is damaged: {0}")]
    Damaged(&'static str),
    #[error("entries of a log must follow one another without a hole")]
    Hole,
}

/// A piece on its way into the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub first_pos: u64,
    pub last_pos: u64,
    pub row_count: u64,
    pub payload_bytes: u64,
    pub sealed: bool,
    pub body: Vec<u8>,
}

/// Cuts entries into pieces of about [`SEALED_BYTES`]. With `seal` every piece is compressed, else only the big ones.
pub fn pack(entries: &[LogEntry], seal: bool) -> Result<Vec<Piece>, LogFormatError> {
    if entries.windows(2).any(|pair| pair[1].pos != pair[0].pos + 1) {
        return Err(LogFormatError::Hole);
    }
    let mut pieces = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + entry.payload.len() <= SEALED_BYTES;
                bytes += entry.payload.len();
                fits
            })
            .count()
            .max(1);
        let (now, later) = rest.split_at(count);
        pieces.push(pack_one(now, seal));
        rest = later;
    }
    Ok(pieces)
}

/// `entries` are not empty.
fn pack_one(entries: &[LogEntry], seal: bool) -> Piece {
    let payload_bytes: usize = entries.iter().map(|e| e.payload.len()).sum();
    let mut frames = Vec::with_capacity(payload_bytes + entries.len() * 12);
    put_frames(entries, &mut frames);
    let packed = (seal || payload_bytes >= SEAL_AT_ONCE_BYTES).then(|| zstd::bulk::compress(&frames, LEVEL));
    let (sealed, encoding, length, content) = match packed {
        // Without memory for it the piece stays as it is; it is read the same way.
        None | Some(Err(_)) => (seal, PLAIN, None, frames),
        Some(Ok(small)) => (true, ZSTD, Some(frames.len() as u32), small),
    };
    let mut body = Vec::with_capacity(content.len() + 6);
    body.extend_from_slice(&[VERSION, encoding]);
    if let Some(length) = length {
        body.extend_from_slice(&length.to_le_bytes());
    }
    body.extend_from_slice(&content);
    Piece {
        first_pos: entries.first().map_or(0, |e| e.pos),
        last_pos: entries.last().map_or(0, |e| e.pos),
        row_count: entries.iter().map(|e| e.rows).sum(),
        payload_bytes: payload_bytes as u64,
        sealed,
        body,
    }
}

/// The entries of a stored piece.
pub fn unpack(body: &[u8]) -> Result<Vec<LogEntry>, LogFormatError> {
    let [version, encoding, content @ ..] = body else { return Err(LogFormatError::Damaged("no head")) };
    if *version != VERSION {
        return Err(LogFormatError::UnknownVersion(*version));
    }
    match *encoding {
        PLAIN => read_frames(content),
        ZSTD => {
            let (length, packed) = content.split_first_chunk::<4>().ok_or(LogFormatError::Damaged("no length"))?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > MAX_FRAMES_BYTES {
                return Err(LogFormatError::Damaged("length"));
            }
            let frames = zstd::bulk::decompress(packed, length).map_err(|_| LogFormatError::Damaged("zstd"))?;
            read_frames(&frames)
        }
        _ => Err(LogFormatError::Damaged("encoding")),
    }
}

fn put_frames(entries: &[LogEntry], out: &mut Vec<u8>) {
    let (mut pos, mut at_ms) = (0, 0);
    for entry in entries {
        put_varint(out, entry.pos - pos);
        put_varint(out, u64::from(entry.attempt));
        put_varint(out, entry.seq);
        put_varint(out, zigzag(entry.at_ms.wrapping_sub(at_ms)));
        put_varint(out, entry.rows);
        put_varint(out, entry.payload.len() as u64);
        out.extend_from_slice(&entry.payload);
        (pos, at_ms) = (entry.pos, entry.at_ms);
    }
}

fn read_frames(mut bytes: &[u8]) -> Result<Vec<LogEntry>, LogFormatError> {
    const CUT: LogFormatError = LogFormatError::Damaged("cut off");
    let (mut entries, mut pos, mut at_ms) = (Vec::new(), 0u64, 0i64);
    while !bytes.is_empty() {
        let mut next = || take_varint(&mut bytes).ok_or(CUT);
        pos = pos.checked_add(next()?).ok_or(LogFormatError::Damaged("pos"))?;
        let attempt = u32::try_from(next()?).map_err(|_| LogFormatError::Damaged("attempt"))?;
        let seq = next()?;
        at_ms = at_ms.wrapping_add(unzigzag(next()?));
        let rows = next()?;
        let length = usize::try_from(next()?).map_err(|_| CUT)?;
        let (payload, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
        entries.push(LogEntry { pos, attempt, seq, at_ms, rows, payload: payload.to_vec() });
        bytes = rest;
    }
    Ok(entries)
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        n |= part << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pos: u64, at_ms: i64, rows: u64, payload: &[u8]) -> LogEntry {
        LogEntry { pos, attempt: 1 + (pos / 4) as u32, seq: pos % 3 * 1_000, at_ms, rows, payload: payload.to_vec() }
    }

    fn samples() -> Vec<LogEntry> {
        vec![
            entry(7, 1_700_000_000_123, 1, br#"{"k":"note","code":"queued"}"#),
            entry(8, 1_700_000_000_120, 0, b""),
            entry(9, -5, 70_000, b"\x00\xff"),
            entry(10, i64::MAX, u64::MAX, b"x"),
            entry(11, i64::MIN, 1, b"y"),
        ]
    }

    fn all(pieces: &[Piece]) -> Vec<LogEntry> {
        pieces.iter().flat_map(|p| unpack(&p.body).unwrap()).collect()
    }

    #[test]
    fn whatever_is_packed_is_read_again() {
        let few = &samples()[..3];
        for seal in [false, true] {
            let pieces = pack(few, seal).unwrap();
            assert_eq!((pieces.len(), pieces[0].sealed), (1, seal));
            assert_eq!((pieces[0].first_pos, pieces[0].last_pos, pieces[0].row_count), (7, 9, 70_001));
            assert_eq!(all(&pieces), few);
        }
        let mut frames = Vec::new();
        put_frames(&samples(), &mut frames);
        assert_eq!(read_frames(&frames).unwrap(), samples());
        assert_eq!(pack(&[], true), Ok(vec![]));
    }

    #[test]
    fn big_batches_are_cut_and_compressed_at_once() {
        let line = "a line that repeats itself\n".repeat(1_000);
        let entries: Vec<_> = (1..=50).map(|pos| entry(pos, 0, 1_000, line.as_bytes())).collect();
        let pieces = pack(&entries, false).unwrap();
        assert!(pieces.len() > 3 && pieces[..pieces.len() - 1].iter().all(|p| p.sealed));
        assert!(pieces.iter().all(|p| p.payload_bytes <= SEALED_BYTES as u64));
        assert!(pieces.iter().filter(|p| p.sealed).all(|p| (p.body.len() as u64) < p.payload_bytes / 10));
        assert!(pieces.windows(2).all(|w| w[1].first_pos == w[0].last_pos + 1));
        assert_eq!(all(&pieces), entries);
    }

    #[test]
    fn an_entry_larger_than_a_piece_is_a_piece_of_its_own() {
        let huge = vec![b'z'; SEALED_BYTES * 3];
        let entries = [entry(1, 0, 1, b"small"), entry(2, 0, 1, &huge), entry(3, 0, 1, b"small")];
        let pieces = pack(&entries, false).unwrap();
        assert_eq!(
            pieces.iter().map(|p| (p.first_pos, p.sealed)).collect::<Vec<_>>(),
            [(1, false), (2, true), (3, false)]
        );
        assert_eq!(all(&pieces), entries);
    }

    #[test]
    fn a_hole_is_refused() {
        assert_eq!(pack(&[entry(1, 0, 0, b""), entry(3, 0, 0, b"")], false), Err(LogFormatError::Hole));
        assert_eq!(pack(&[entry(1, 0, 0, b""), entry(1, 0, 0, b"")], false), Err(LogFormatError::Hole));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        for seal in [false, true] {
            let body = pack(&samples()[..3], seal).unwrap().remove(0).body;
            for cut in 0..body.len() {
                // A cut between two frames reads as fewer entries; any other is an error.
                if let Ok(entries) = unpack(&body[..cut]) {
                    assert!(entries.len() < 3, "cut at {cut}");
                }
            }
            for at in 0..body.len() {
                let mut bad = body.clone();
                bad[at] ^= 0x55;
                let _ = unpack(&bad);
            }
        }
        assert_eq!(unpack(&[2, 0]), Err(LogFormatError::UnknownVersion(2)));
        assert_eq!(unpack(&[1, 9]), Err(LogFormatError::Damaged("encoding")));
        assert_eq!(unpack(&[1, ZSTD, 0xff, 0xff, 0xff, 0xff]), Err(LogFormatError::Damaged("length")));
        assert_eq!(take_varint(&mut &[0xff; 11][..]), None);
    }

    /// What version 1 wrote must be read by every later program.
    #[test]
    fn version_1_is_read_for_ever() {
        let golden: Vec<Vec<u8>> =
            include_str!("testdata/log-v1.hex").lines().map(|line| hex::decode(line).unwrap()).collect();
        assert_eq!(golden.len(), 2, "one plain and one compressed body");
        for body in &golden {
            assert_eq!(unpack(body).unwrap(), samples()[..3]);
        }
        assert_eq!(pack(&samples()[..3], false).unwrap()[0].body, golden[0]);
    }
}
