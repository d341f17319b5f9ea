//! The spool: an append-only file with every event of an attempt, in order, as the relay sends it.
//!
//! File format and IO; what may stand in an event (secrets, how much of a log) is decided before it comes here. Written by
//! one process at a time (in a Pod the checkout first, then the build), read by any number of readers while it grows.
//! Nothing is synced to disk: when the machine dies, the build dies with it.

use crate::first::first;
use kiops_events::chain::Chain;
use kiops_events::event::{AgentEnd, EventKind, Phase};
use kiops_events::wire::{self, Frame, SPOOL_HEADER_BYTES, SPOOL_MAGIC};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much a reader takes from the file at once.
const READ_BYTES: usize = 256 * 1024;

/// The clock that every process on this machine shares and that nobody can set: an attempt's offsets are on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    zero_ms: i64,
}

impl Clock {
    /// Milliseconds since the attempt began.
    pub fn now_ms(self) -> i64 {
        boottime_ms() - self.zero_ms
    }

    /// The wall clock's time at the attempt's beginning, in nanoseconds since 1970.
    pub fn zero_wall_ns(self) -> i64 {
        let wall = clock_gettime(ClockId::Realtime);
        wall.tv_sec * 1_000_000_000 + wall.tv_nsec - self.now_ms() * 1_000_000
    }
}

fn boottime_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// What the events in a spool say about where its attempt stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Sequence number of the last event.
    pub last_seq: u64,
    /// How its result says that the attempt ended.
    pub ended: Option<AgentEnd>,
    pub push_began: bool,
}

/// The one who appends.
pub struct Writer {
    file: File,
    end: u64,
    chain: Chain,
    clock: Clock,
    standing: Standing,
    record: Vec<u8>,
}

/// [`kiops_events::AgentEvent`] without owning the kind.
#[derive(Serialize)]
struct Event<'a> {
    attempt: u32,
    seq: u64,
    t: i64,
    #[serde(flatten)]
    kind: &'a EventKind,
}

/// The few fields of an event that a spool's standing depends on.
#[derive(Deserialize)]
struct Head<'a> {
    k: &'a str,
    #[serde(default)]
    phase: Option<Phase>,
    #[serde(default)]
    end: Option<AgentEnd>,
}

impl Standing {
    fn take(&mut self, payload: &[u8]) {
        self.last_seq += 1;
        if let Ok(head) = serde_json::from_slice::<Head<'_>>(payload) {
            if head.k == "result" {
                self.ended = head.end.or(Some(AgentEnd::Infrastructure));
            }
            self.push_began |= head.k == "phase_entered" && head.phase == Some(Phase::Push);
        }
    }
}

/// Makes the spool where there is none, and starts the attempt's clock. It appears whole: of several who come first,
/// one makes it and all find the same.
pub fn make(path: &Path) -> io::Result<Clock> {
    match File::open(path) {
        Ok(file) if file.metadata()?.len() > 0 => return read_header(&file),
        // Empty: made by an agent that was cut off at once, before there was anybody to race with.
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let mut header = [0; SPOOL_HEADER_BYTES];
    header[..8].copy_from_slice(SPOOL_MAGIC);
    header[8..].copy_from_slice(&boottime_ms().to_le_bytes());
    first(path, |file| file.write_all_at(&header, 0))?;
    read_header(&File::open(path)?)
}

impl Writer {
    /// Makes the spool, or goes on with one that is there: a record that a killed process left half written is cut off.
    pub fn open(path: &Path) -> io::Result<Self> {
        let clock = make(path)?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut writer = Self {
            file,
            end: SPOOL_HEADER_BYTES as u64,
            chain: Chain::default(),
            clock,
            standing: Standing::default(),
            record: Vec::new(),
        };
        writer.take_up()?;
        Ok(writer)
    }

    fn take_up(&mut self) -> io::Result<()> {
        let mut reader = Reader {
            file: self.file.try_clone()?,
            clock: self.clock,
            at: self.end,
            buffer: Vec::new(),
            filled: 0,
            used: 0,
        };
        while let Some(payload) = reader.record()? {
            self.chain.push(payload);
            self.end += 4 + payload.len() as u64;
            self.standing.take(payload);
        }
        self.file.set_len(self.end)
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Count and hash of all that has been written.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Appends one event under the next number. Either all of it is in the file afterwards, or nothing of it.
    pub fn append(&mut self, attempt: u32, kind: &EventKind) -> io::Result<()> {
        let event = Event { attempt, seq: self.standing.last_seq + 1, t: self.clock.now_ms(), kind };
        self.record.clear();
        self.record.extend_from_slice(&[0; 4]);
        serde_json::to_writer(&mut self.record, &event)?;
        let length = self.record.len() - 4;
        // An event frame is the record and a tag.
        if length >= wire::MAX_FRAME_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an event of {length} bytes")));
        }
        self.record[..4].copy_from_slice(&(length as u32).to_le_bytes());
        if let Err(error) = self.file.write_all_at(&self.record, self.end) {
            // A full disk takes a part of it: the next record must not come after that.
            self.file.set_len(self.end)?;
            return Err(error);
        }
        self.end += self.record.len() as u64;
        self.chain.push(&self.record[4..]);
        self.standing.last_seq = self.chain.count;
        if let EventKind::Result(result) = kind {
            self.standing.ended = Some(result.end);
        }
        self.standing.push_began |= matches!(kind, EventKind::PhaseEntered { phase: Phase::Push });
        Ok(())
    }
}

/// Serves complete records from the beginning on, and goes on as the file grows.
pub struct Reader {
    file: File,
    clock: Clock,
    /// Where in the file what is in the buffer ends.
    at: u64,
    /// Kept, and written over: to clear it at every look would be most of a relay's work.
    buffer: Vec<u8>,
    /// How much of the buffer is the file's.
    filled: usize,
    /// How much of that has been served.
    used: usize,
}

impl Reader {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let clock = read_header(&file)?;
        Ok(Self { file, clock, at: SPOOL_HEADER_BYTES as u64, buffer: Vec::new(), filled: 0, used: 0 })
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The next complete record; none where the file ends for now.
    pub fn record(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let split = wire::split_record(&self.buffer[self.used..self.filled]).map_err(io::Error::other)?;
            if let Some(used) = split.map(|(_, used)| used) {
                let from = self.used + 4;
                self.used += used;
                return Ok(Some(&self.buffer[from..self.used]));
            }
            self.buffer.copy_within(self.used..self.filled, 0);
            self.filled -= self.used;
            self.used = 0;
            let wanted = self.filled + READ_BYTES;
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let got = self.file.read_at(&mut self.buffer[self.filled..wanted], self.at)?;
            self.filled += got;
            self.at += got as u64;
            if got == 0 {
                // What is here of the next record may be taken back: a writer that finds the disk full cuts it off and
                // puts another one in its place. It is read anew when it is asked for.
                self.at -= self.filled as u64;
                self.filled = 0;
                return Ok(None);
            }
        }
    }

    /// Passes over `count` records; false when there are not as many.
    pub fn skip(&mut self, count: u64) -> io::Result<bool> {
        for _ in 0..count {
            if self.record()?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Appends the next records to `out` as frames, up to about `limit` bytes; how many they were.
    pub fn frames(&mut self, out: &mut Vec<u8>, limit: usize) -> io::Result<u64> {
        let mut count = 0;
        while out.len() < limit {
            let Some(payload) = self.record()? else { break };
            Frame::Event(payload.to_vec()).encode(out);
            count += 1;
        }
        Ok(count)
    }
}

/// Somebody who does not write, and wants to know where the attempt stands and what it says.
pub struct Follower {
    reader: Reader,
    standing: Standing,
}

impl Follower {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { reader: Reader::open(path)?, standing: Standing::default() })
    }

    /// Reads on to where the spool ends now, and shows every event to `seen`.
    pub fn look(&mut self, mut seen: impl FnMut(&[u8])) -> io::Result<Standing> {
        while let Some(payload) = self.reader.record()? {
            self.standing.take(payload);
            seen(payload);
        }
        Ok(self.standing)
    }
}

fn read_header(file: &File) -> io::Result<Clock> {
    let mut header = [0; SPOOL_HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    let (magic, zero) = header.split_at(8);
    if magic != SPOOL_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this file is not a spool of this version"));
    }
    Ok(Clock { zero_ms: i64::from_le_bytes(zero.try_into().unwrap_or_default()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_events::AgentEvent;
    use kiops_events::event::{LineText, Place};

    fn all(reader: &mut Reader) -> Vec<AgentEvent> {
        let mut out = Vec::new();
        while let Some(payload) = reader.record().unwrap() {
            out.push(serde_json::from_slice(payload).unwrap());
        }
        out
    }

    fn lines(size: usize) -> EventKind {
        let text = "x".repeat(size);
        EventKind::Lines(LineText { place: Place::Step(1), first: 1, at_ms: 0, text, cut: vec![] })
    }

    #[test]
    fn a_second_process_goes_on_where_the_first_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut first = Writer::open(&path).unwrap();
        first.append(1, &EventKind::PhaseEntered { phase: Phase::Push }).unwrap();
        first.append(1, &lines(10)).unwrap();
        let (chain, clock) = (first.chain().clone(), first.clock());
        drop(first);
        // Killed in the middle of a record.
        let whole = std::fs::metadata(&path).unwrap().len();
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut &file, &[200, 0, 0, 0, b'{', b'"']).unwrap();

        let mut second = Writer::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
        assert_eq!((second.chain(), second.clock()), (&chain, clock));
        assert_eq!(second.standing(), Standing { last_seq: 2, ended: None, push_began: true });
        second.append(1, &lines(1)).unwrap();
        drop(second);
        let events = all(&mut Reader::open(&path).unwrap());
        assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(events[1].kind, lines(10));
    }

    #[test]
    fn a_reader_follows_growth_and_never_serves_half_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut writer = Writer::open(&path).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert!(reader.record().unwrap().is_none());
        let sizes = [0, 1, 100, READ_BYTES - 4, READ_BYTES, 3 * READ_BYTES + 7];
        for size in sizes {
            writer.append(1, &lines(size)).unwrap();
            if size % 2 == 0 {
                assert_eq!(all(&mut reader).last().unwrap().kind, lines(size));
            }
        }
        writer.file.write_all_at(&[10, 0, 0, 0, 1, 2, 3], writer.end).unwrap();
        assert_eq!(all(&mut reader).len(), 1);
        let wanted: Vec<_> = sizes.into_iter().map(lines).collect();
        let kinds = |reader: &mut Reader| all(reader).into_iter().map(|e| e.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&mut Reader::open(&path).unwrap()), wanted);
        let mut later = Reader::open(&path).unwrap();
        assert!(later.skip(5).unwrap());
        assert_eq!(kinds(&mut later), wanted[5..]);
        assert!(!Reader::open(&path).unwrap().skip(7).unwrap());
    }

    #[test]
    fn a_reader_that_saw_a_part_of_a_record_sees_the_one_that_took_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut writer = Writer::open(&path).unwrap();
        writer.append(1, &lines(1)).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(all(&mut reader).len(), 1);
        // As much of a longer record as a full disk took, and the writer's next word.
        writer.file.write_all_at(&[0, 0, 1, 0, 1, 2, 3], writer.end).unwrap();
        assert!(reader.record().unwrap().is_none());
        writer.file.set_len(writer.end).unwrap();
        writer.append(1, &lines(3)).unwrap();
        let after: Vec<_> = all(&mut reader).into_iter().map(|e| (e.seq, e.kind)).collect();
        assert_eq!(after, [(2, lines(3))]);
    }

    #[test]
    fn of_many_who_come_first_one_makes_the_spool() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let clocks: Vec<Clock> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(|| make(&path).unwrap())).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(clocks.iter().all(|clock| *clock == clocks[0]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        assert_eq!(Writer::open(&path).unwrap().clock(), clocks[0]);
    }

    #[test]
    fn a_follower_knows_where_the_attempt_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut writer = Writer::open(&path).unwrap();
        let mut follower = Follower::open(&path).unwrap();
        assert_eq!(follower.look(|_| unreachable!()).unwrap(), Standing::default());
        writer.append(1, &EventKind::PhaseEntered { phase: Phase::Push }).unwrap();
        writer.append(1, &lines(3)).unwrap();
        let mut seen = 0;
        let standing = follower.look(|_| seen += 1).unwrap();
        assert_eq!((seen, standing), (2, writer.standing()));
        assert_eq!(follower.look(|_| unreachable!()).unwrap(), standing);
    }

    #[test]
    fn a_record_too_long_for_a_frame_is_refused_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut writer = Writer::open(&path).unwrap();
        assert!(writer.append(1, &lines(wire::MAX_FRAME_BYTES)).is_err());
        writer.append(1, &lines(1)).unwrap();
        assert_eq!(all(&mut Reader::open(&path).unwrap()).len(), 1);
    }

    #[test]
    fn a_file_that_is_no_spool_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        std::fs::write(&path, "something else entirely").unwrap();
        assert!(Writer::open(&path).is_err());
        assert!(Reader::open(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"something else entirely");
    }
}
