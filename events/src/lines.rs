//! Cutting bytes into the lines of a log.
//!
//! A line ends at LF. A lone CR starts the line over (a progress bar leaves its last state), CRLF is one line end. A line
//! longer than [`MAX_LINE_BYTES`] goes on in the next, marked. What is not UTF-8 becomes U+FFFD, and so does NUL, which
//! databases refuse in a text.

use crate::event::{EventKind, LineText, MAX_LINE_BYTES, MAX_LINES_EVENT_BYTES, Place};
use memchr::{memchr_iter, memchr2, memrchr};
use std::borrow::Cow;

/// Collects one place's lines and hands them out as events; the line that has not ended yet waits inside.
#[derive(Debug)]
pub struct LineCutter {
    place: Place,
    /// Number of the next line that is handed out.
    next: u64,
    /// Bytes of the line that has not ended.
    partial: Vec<u8>,
    text: String,
    count: u64,
    cut: Vec<u32>,
    at_ms: u32,
}

impl LineCutter {
    pub fn new(place: Place) -> Self {
        Self { place, next: 1, partial: Vec::new(), text: String::new(), count: 0, cut: Vec::new(), at_ms: 0 }
    }

    /// Takes bytes that arrived `at_ms` after the place's start. Lines that ended wait for [`Self::hand_out`], unless
    /// they fill an event.
    pub fn push(&mut self, mut bytes: &[u8], at_ms: u32, out: &mut Vec<EventKind>) {
        if !self.partial.is_empty() {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return self.keep(bytes, at_ms, out) };
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&bytes[..end]);
            self.line(&line, at_ms, out);
            line.clear();
            self.partial = line;
            bytes = &bytes[end + 1..];
        }
        if let Some(end) = memrchr(b'\n', bytes) {
            self.whole_lines(&bytes[..=end], at_ms, out);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes, at_ms, out);
    }

    /// The place ended: what has no line end yet is a line all the same.
    pub fn end(&mut self, at_ms: u32, out: &mut Vec<EventKind>) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.line(&line, at_ms, out);
        }
        self.hand_out(out);
    }

    /// Turns the lines that have ended into an event.
    pub fn hand_out(&mut self, out: &mut Vec<EventKind>) {
        if self.count == 0 {
            return;
        }
        out.push(EventKind::Lines(LineText {
            place: self.place,
            first: self.next,
            at_ms: self.at_ms,
            text: std::mem::take(&mut self.text),
            cut: std::mem::take(&mut self.cut),
        }));
        self.next += self.count;
        self.count = 0;
    }

    /// When the first of the waiting lines came; none where none waits.
    pub fn waiting_since(&self) -> Option<u32> {
        (self.count > 0).then_some(self.at_ms)
    }

    /// `bytes` is any number of lines, each with its LF.
    fn whole_lines(&mut self, bytes: &[u8], at_ms: u32, out: &mut Vec<EventKind>) {
        let clean = memchr2(b'\r', 0, bytes).is_none().then(|| std::str::from_utf8(bytes).ok()).flatten();
        let mut longest = 0;
        let mut start = 0;
        if clean.is_some() {
            for end in memchr_iter(b'\n', bytes) {
                longest = longest.max(end - start);
                start = end + 1;
            }
        }
        match clean {
            // Nearly every chunk of a real log: copied as it is.
            Some(text) if longest <= MAX_LINE_BYTES => self.clean_lines(text, at_ms, out),
            _ => {
                for line in bytes[..bytes.len() - 1].split(|b| *b == b'\n') {
                    self.line(line, at_ms, out);
                }
            }
        }
    }

    fn clean_lines(&mut self, mut text: &str, at_ms: u32, out: &mut Vec<EventKind>) {
        while !text.is_empty() {
            let room = MAX_LINES_EVENT_BYTES.saturating_sub(self.text.len() + 1);
            let end = if text.len() <= room {
                text.len()
            } else {
                match memrchr(b'\n', &text.as_bytes()[..room]) {
                    Some(i) => i + 1,
                    None => {
                        self.hand_out(out);
                        continue;
                    }
                }
            };
            let count = memchr_iter(b'\n', &text.as_bytes()[..end]).count() as u64;
            self.append(&text[..end - 1], count, at_ms);
            text = &text[end..];
        }
    }

    fn append(&mut self, text: &str, count: u64, at_ms: u32) {
        if self.count == 0 {
            self.at_ms = at_ms;
            self.text.reserve(text.len());
        } else {
            self.text.push('\n');
        }
        self.text.push_str(text);
        self.count += count;
    }

    /// One line without its LF, however it looks.
    fn line(&mut self, bytes: &[u8], at_ms: u32, out: &mut Vec<EventKind>) {
        let text = readable(visible(bytes));
        let mut rest = &*text;
        while rest.len() > MAX_LINE_BYTES {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_LINE_BYTES));
            self.piece(piece, true, at_ms, out);
            rest = after;
        }
        self.piece(rest, false, at_ms, out);
    }

    fn piece(&mut self, text: &str, cut: bool, at_ms: u32, out: &mut Vec<EventKind>) {
        if self.text.len() + 1 + text.len() > MAX_LINES_EVENT_BYTES {
            self.hand_out(out);
        }
        if cut {
            self.cut.push(self.count as u32);
        }
        self.append(text, 1, at_ms);
    }

    /// Keeps the beginning of a line, but never more of it than a line may be long.
    fn keep(&mut self, bytes: &[u8], at_ms: u32, out: &mut Vec<EventKind>) {
        self.partial.extend_from_slice(bytes);
        let written = self.partial.iter().rposition(|b| *b != b'\r').map_or(0, |i| i + 1);
        // Whether the CRs at the end begin a line end or start the line over is known by the next byte; one says as much
        // as many.
        self.partial.truncate(written + 1);
        if let Some(i) = memrchr(b'\r', &self.partial[..written]) {
            self.partial.drain(..=i);
        }
        while self.partial.len() > MAX_LINE_BYTES + 4 {
            let mut end = MAX_LINE_BYTES;
            // Not in the middle of a character, where it is one.
            while end > MAX_LINE_BYTES - 4 && self.partial[end] & 0xC0 == 0x80 {
                end -= 1;
            }
            let rest = self.partial.split_off(end);
            let whole = std::mem::replace(&mut self.partial, rest);
            let text = readable(&whole);
            let mut pieces = &*text;
            while !pieces.is_empty() {
                let (piece, after) = pieces.split_at(pieces.floor_char_boundary(MAX_LINE_BYTES));
                self.piece(piece, true, at_ms, out);
                pieces = after;
            }
        }
    }
}

/// What is left to see of a line after its carriage returns.
fn visible(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| *b != b'\r').map_or(0, |i| i + 1);
    let start = memrchr(b'\r', &line[..end]).map_or(0, |i| i + 1);
    &line[start..end]
}

fn readable(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Phase;

    /// The lines of `chunks`, each with its mark, checked to be numbered without a hole.
    fn cut(chunks: &[&[u8]]) -> Vec<(String, bool)> {
        let mut cutter = LineCutter::new(Place::Phase(Phase::Checkout));
        let mut events = Vec::new();
        chunks.iter().for_each(|c| cutter.push(c, 0, &mut events));
        cutter.end(0, &mut events);
        let mut lines = Vec::new();
        for event in events {
            let EventKind::Lines(l) = event else { panic!("not lines") };
            assert_eq!(l.first, lines.len() as u64 + 1);
            assert!(l.text.len() <= MAX_LINES_EVENT_BYTES);
            for (i, text) in l.lines().enumerate() {
                assert!(text.len() <= MAX_LINE_BYTES);
                lines.push((text.to_owned(), l.cut.contains(&(i as u32))));
            }
        }
        lines
    }

    fn texts(chunks: &[&[u8]]) -> Vec<String> {
        cut(chunks).into_iter().map(|(t, _)| t).collect()
    }

    #[test]
    fn lines_end_where_a_terminal_ends_them() {
        let table: &[(&[u8], &[&str])] = &[
            (b"", &[]),
            (b"\n", &[""]),
            (b"a\nb\n", &["a", "b"]),
            (b"a\nb", &["a", "b"]),
            (b"a\r\nb\r\n", &["a", "b"]),
            (b"a\r\r\nb", &["a", "b"]),
            (b"10%\r20%\r100%\n", &["100%"]),
            (b"10%\r20%\r", &["20%"]),
            (b"\r\n", &[""]),
            (b"\rx\n\n", &["x", ""]),
            (b"a\0b\n", &["a\u{FFFD}b"]),
            (b"\x1b[31mred\x1b[0m\n", &["\x1b[31mred\x1b[0m"]),
            (b"\xff\xfe\n", &["\u{FFFD}\u{FFFD}"]),
            ("한글\n".as_bytes(), &["한글"]),
        ];
        for (input, wanted) in table {
            assert_eq!(&texts(&[input]), wanted, "whole: {:?}", String::from_utf8_lossy(input));
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(&texts(&bytes), wanted, "byte by byte: {:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn a_long_line_goes_on_in_the_next_one_marked() {
        for step in [1000, 65_536, 200_000] {
            let input = "é".repeat(100_000);
            let lines = cut(&input.as_bytes().chunks(step).collect::<Vec<_>>());
            assert_eq!(lines.iter().map(|(t, _)| t.as_str()).collect::<String>(), input, "chunks of {step}");
            assert_eq!(lines.iter().map(|(_, c)| *c).collect::<Vec<_>>(), [true, true, true, false]);
        }
    }

    #[test]
    fn ten_megabytes_without_a_line_end_lose_nothing() {
        let input = vec![b'x'; 10_000_000];
        let lines = cut(&input.chunks(32 * 1024).collect::<Vec<_>>());
        assert_eq!(lines.iter().map(|(t, _)| t.len()).sum::<usize>(), input.len());
        assert!(lines[..lines.len() - 1].iter().all(|(_, cut)| *cut) && !lines[lines.len() - 1].1);
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_not_cut() {
        let mut input = vec![b'x'; MAX_LINE_BYTES];
        input.extend_from_slice(b"\r\n");
        assert_eq!(cut(&input.chunks(999).collect::<Vec<_>>()), [("x".repeat(MAX_LINE_BYTES), false)]);
        assert_eq!(cut(&[&input]), [("x".repeat(MAX_LINE_BYTES), false)]);
    }

    #[test]
    fn a_progress_bar_of_any_length_stays_small() {
        let mut cutter = LineCutter::new(Place::Step(1));
        let mut out = Vec::new();
        for i in 0..200_000 {
            cutter.push(format!("\rstep {i}").as_bytes(), 0, &mut out);
            cutter.push(b"\r\r\r", 0, &mut out);
            assert!(cutter.partial.len() < 100);
        }
        cutter.end(0, &mut out);
        assert_eq!(out.len(), 1);
        assert!(matches!(&out[0], EventKind::Lines(l) if l.text == "step 199999"));
    }

    #[test]
    fn events_stay_under_their_size() {
        let input = "y".repeat(99) + "\n";
        let lines = cut(&[input.repeat(20_000).as_bytes()]);
        assert_eq!(lines.len(), 20_000);
        // Binary data grows when it is made readable.
        assert!(cut(&[&[0xff; 300_000]]).len() > 10);
    }
}
