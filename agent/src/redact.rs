//! Keeping secret values out of everything that is written down.
//!
//! Knows values and their disguises, not where they come from. A value is found as it is and also base64-encoded (at each
//! of the three alignments it can have inside a longer text, and broken into lines anywhere, as `base64` and PEM do it),
//! percent-encoded and JSON-escaped. Every byte that belongs to any such occurrence, overlapping ones too, is covered by
//! [`MASK`]; line ends are not, so that lines stay as many as they are. In a stream only what may be the beginning of a
//! value is held back, and never more than the longest value.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use kiops_events::event::EventKind;
use kiops_events::rawjson::Filter;
use std::collections::BTreeSet;
use std::sync::Arc;

pub const MASK: &str = "***";
/// A shorter value would be found everywhere; such secrets are refused when they are entered.
pub const MIN_VALUE_BYTES: usize = 6;
/// The beginning of a base64 form that stands at a line's end is held back, in case the next line goes on with it, from
/// this many characters on: with fewer nearly every line would wait for the next one. What follows a shorter beginning is
/// found without it.
const HELD_OVER_A_LINE: usize = 4;

/// Finds a set of values; cheap to clone.
#[derive(Clone)]
pub struct Redactor(Arc<Patterns>);

struct Patterns {
    /// Found within a line.
    plain: Set,
    /// Base64: found across lines, too.
    base64: Set,
}

/// Texts that are looked for together.
struct Set {
    /// None where there is nothing to look for.
    finder: Option<AhoCorasick>,
    sorted: Vec<Vec<u8>>,
    longest: usize,
    /// Whether a text begins with this byte.
    first: [bool; 256],
}

impl Redactor {
    /// Values of several lines count as a whole (in encodings that make one line of them) and line by line.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut plain, mut base64) = (BTreeSet::new(), BTreeSet::new());
        let mut add = |value: &[u8]| {
            if value.len() >= MIN_VALUE_BYTES {
                disguises(value, &mut plain);
                base64_disguises(value, &mut base64);
            }
        };
        for value in values {
            let value = trim_line_ends(value);
            add(value);
            value.split(|b| *b == b'\n').for_each(|line| add(line.trim_ascii()));
        }
        Self(Arc::new(Patterns { plain: Set::new(plain), base64: Set::new(base64) }))
    }

    fn is_empty(&self) -> bool {
        self.0.plain.finder.is_none()
    }

    /// The text with every value masked; none where it holds none.
    pub fn text(&self, text: &str) -> Option<String> {
        let covered = self.0.covered(text.as_bytes());
        if covered.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for (start, end) in covered {
            out.extend_from_slice(&text.as_bytes()[at..start]);
            out.extend_from_slice(MASK.as_bytes());
            at = end;
        }
        out.extend_from_slice(&text.as_bytes()[at..]);
        Some(String::from_utf8_lossy(&out).into_owned())
    }

    fn mask(&self, text: &mut String) {
        if let Some(masked) = self.text(text) {
            *text = masked;
        }
    }

    /// Masks every text of an event.
    pub fn event(&self, kind: &mut EventKind) {
        if self.is_empty() {
            return;
        }
        match kind {
            // No line end is ever covered, so the lines stay as many as they are.
            EventKind::Lines(lines) => self.mask(&mut lines.text),
            EventKind::StepAnnounced { name, .. } => self.mask(name),
            EventKind::StepStarted { name, stage, .. } => {
                self.mask(name);
                stage.iter_mut().for_each(|s| self.mask(s));
            }
            EventKind::Transfer { id, .. } => self.mask(id),
            EventKind::StepEnded { error, .. } => error.iter_mut().for_each(|e| self.mask(e)),
            EventKind::Warning { short, detail, url, .. } => {
                self.mask(short);
                detail.iter_mut().for_each(|d| self.mask(d));
                url.iter_mut().for_each(|u| self.mask(u));
            }
            EventKind::Note { args, .. } => args.values_mut().for_each(|v| self.mask(v)),
            EventKind::Result(result) => result.args.values_mut().for_each(|v| self.mask(v)),
            EventKind::PhaseEntered { .. } | EventKind::Usage { .. } | EventKind::Unknown => {}
        }
    }

    /// A filter for bytes that come in pieces.
    pub fn stream(&self) -> Stream {
        Stream { redactor: self.clone(), held: Vec::new(), known: Vec::new(), masked: false }
    }
}

impl Set {
    fn new(patterns: BTreeSet<Vec<u8>>) -> Self {
        let sorted: Vec<Vec<u8>> = patterns.into_iter().collect();
        let finder = (!sorted.is_empty())
            .then(|| AhoCorasick::builder().match_kind(MatchKind::Standard).build(&sorted).ok())
            .flatten();
        let longest = sorted.iter().map(Vec::len).max().unwrap_or_default();
        let mut first = [false; 256];
        sorted.iter().filter_map(|p| p.first()).for_each(|b| first[usize::from(*b)] = true);
        Self { finder, sorted, longest, first }
    }

    fn find(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let Some(finder) = self.finder.as_ref().filter(|f| f.is_match(text)) else { return Vec::new() };
        finder.find_overlapping_iter(text).map(|m| (m.start(), m.end())).collect()
    }

    /// Whether a longer text of this set begins with the piece.
    fn begins_one(&self, piece: &[u8]) -> bool {
        if !self.first[usize::from(piece[0])] {
            return false;
        }
        let at = self.sorted.partition_point(|p| p.as_slice() < piece);
        // The texts that begin with the piece stand together, the shortest first; that one may be the piece itself.
        self.sorted[at..].iter().take(2).any(|p| p.len() > piece.len() && p.starts_with(piece))
    }
}

impl Patterns {
    /// The stretches of `text` that belong to values, in order, those that touch made one. None holds a line end.
    fn covered(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let mut found = self.plain.find(text);
        if memchr::memchr2(b'\n', b'\r', text).is_none() {
            found.extend(self.base64.find(text));
        } else {
            let joined = Joined::new(text);
            for (start, end) in self.base64.find(&joined.text) {
                joined.stretches(start, end, &mut found);
            }
        }
        found.sort_unstable();
        merge(found)
    }

    /// Where the longest end of `text` begins that may be the beginning of a value.
    fn open_end(&self, text: &[u8]) -> usize {
        self.open_end_plain(text).min(self.open_end_base64(text))
    }

    fn open_end_plain(&self, text: &[u8]) -> usize {
        // No plain text holds a line end.
        let line = memchr::memrchr(b'\n', text).map_or(0, |i| i + 1);
        let from = text.len().saturating_sub(self.plain.longest.saturating_sub(1)).max(line);
        (from..text.len()).find(|at| self.plain.begins_one(&text[*at..])).unwrap_or(text.len())
    }

    fn open_end_base64(&self, text: &[u8]) -> usize {
        if self.base64.sorted.is_empty() {
            return text.len();
        }
        // The last bytes without line ends, back to front.
        let wanted = self.base64.longest.saturating_sub(1);
        let mut tail: Vec<(usize, u8)> = Vec::new();
        for (at, byte) in text.iter().enumerate().rev() {
            if tail.len() == wanted {
                break;
            }
            if !is_line_end(*byte) {
                // Nothing that is not base64 can be within a form.
                if !is_base64(*byte) {
                    break;
                }
                tail.push((at, *byte));
            }
        }
        tail.reverse();
        let bytes: Vec<u8> = tail.iter().map(|(_, byte)| *byte).collect();
        let ended = text.last().is_some_and(|b| is_line_end(*b));
        let least = if ended { HELD_OVER_A_LINE } else { 1 };
        let open =
            (0..bytes.len()).take_while(|i| bytes.len() - i >= least).find(|i| self.base64.begins_one(&bytes[*i..]));
        open.map_or(text.len(), |i| tail[i].0)
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// A text without its line ends, and the way back.
struct Joined {
    text: Vec<u8>,
    /// Where pieces without a line end begin: here, and in the original.
    pieces: Vec<(usize, usize)>,
}

impl Joined {
    fn new(original: &[u8]) -> Self {
        let mut joined = Self { text: Vec::with_capacity(original.len()), pieces: Vec::new() };
        let mut at = 0;
        for end in memchr::memchr2_iter(b'\n', b'\r', original).chain([original.len()]) {
            if end > at {
                joined.pieces.push((joined.text.len(), at));
                joined.text.extend_from_slice(&original[at..end]);
            }
            at = end + 1;
        }
        joined
    }

    /// What `[start, end)` covers of the original, piece by piece.
    fn stretches(&self, start: usize, end: usize, out: &mut Vec<(usize, usize)>) {
        let first = self.pieces.partition_point(|(at, _)| *at <= start) - 1;
        let pieces = &self.pieces[first..];
        for (i, (at, original)) in pieces.iter().enumerate() {
            if *at >= end {
                break;
            }
            let piece_end = pieces.get(i + 1).map_or(self.text.len(), |(next, _)| *next).min(end);
            let from = start.max(*at);
            out.push((original + (from - at), original + (piece_end - at)));
        }
    }
}

fn merge(sorted: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (start, end) in sorted {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// [`Redactor`] over bytes that come in pieces.
pub struct Stream {
    redactor: Redactor,
    /// What may be the beginning of a value.
    held: Vec<u8>,
    /// Stretches of `held` that belong to values which began before it.
    known: Vec<(usize, usize)>,
    /// The last thing written is a mask: what is covered from the beginning of `held` on belongs to it.
    masked: bool,
}

impl Stream {
    fn write(&mut self, bytes: &[u8], ended: bool, out: &mut Vec<u8>) {
        let patterns = self.redactor.0.clone();
        if self.redactor.is_empty() {
            return out.extend_from_slice(bytes);
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        let open = if ended { text.len() } else { patterns.open_end(&text) };
        if open > 0 {
            let mut covered = patterns.covered(&text);
            covered.append(&mut self.known);
            covered.sort_unstable();
            let masked = std::mem::take(&mut self.masked);
            let mut at = 0;
            for (start, end) in merge(covered) {
                if start < open {
                    out.extend_from_slice(&text[at..start]);
                    if start > 0 || !masked {
                        out.extend_from_slice(MASK.as_bytes());
                    }
                    at = end.min(open);
                    self.masked = end >= open;
                }
                if end > open {
                    self.known.push((start.max(open) - open, end - open));
                }
            }
            out.extend_from_slice(&text[at..open]);
            text.drain(..open);
        }
        self.held = text;
    }
}

impl Filter for Stream {
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.write(bytes, false, out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.write(&[], true, out);
        self.masked = false;
    }
}

fn trim_line_ends(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |i| i + 1);
    &value[..end]
}

/// What a value may look like within a line.
fn disguises(value: &[u8], patterns: &mut BTreeSet<Vec<u8>>) {
    let mut add = |pattern: Vec<u8>| {
        if pattern.len() >= MIN_VALUE_BYTES && !pattern.iter().any(|b| is_line_end(*b)) {
            patterns.insert(pattern);
        }
    };
    add(value.to_vec());
    for unreserved in [&b"-._~"[..], b"-_.!~*'()", b"*-._"] {
        for hex in [b"0123456789ABCDEF", b"0123456789abcdef"] {
            add(percent_encoded(value, unreserved, hex, false));
            add(percent_encoded(value, unreserved, hex, true));
        }
    }
    if let Ok(text) = std::str::from_utf8(value) {
        let json = serde_json::to_string(text).unwrap_or_default();
        let json = json.trim_matches('"').to_owned();
        // Go escapes these for HTML, PHP escapes the slash.
        add(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").into_bytes());
        add(json.replace('/', "\\/").into_bytes());
        add(json.into_bytes());
    }
}

fn base64_disguises(value: &[u8], patterns: &mut BTreeSet<Vec<u8>>) {
    for form in base64_forms(value) {
        // Without their first characters as well: those may stand alone at the end of a line that has been let go.
        for left_out in 0..HELD_OVER_A_LINE {
            if form.len() >= MIN_VALUE_BYTES + left_out {
                patterns.insert(form[left_out..].to_vec());
            }
        }
    }
}

/// The part of a base64 text that depends on the value alone, for each place it can begin at within a group of three.
fn base64_forms(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(value);
        // The characters that also hold bits of what stands before or after.
        let first = (before * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.push(text.as_bytes()[first..last].to_vec());
        }
    }
    forms
}

fn percent_encoded(value: &[u8], unreserved: &[u8], hex: &[u8; 16], plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 3);
    for byte in value {
        match byte {
            b if b.is_ascii_alphanumeric() || unreserved.contains(b) => out.push(*b),
            b' ' if plus => out.push(b'+'),
            b => out.extend_from_slice(&[b'%', hex[usize::from(b >> 4)], hex[usize::from(b & 15)]]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn redactor(values: &[&str]) -> Redactor {
        Redactor::new(values.iter().map(|v| v.as_bytes()))
    }

    fn masked(values: &[&str], text: &str) -> String {
        redactor(values).text(text).unwrap_or_else(|| text.to_owned())
    }

    fn streamed(redactor: &Redactor, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        pieces.iter().for_each(|p| stream.pass(p, &mut out));
        stream.end(&mut out);
        out
    }

    #[test]
    fn a_value_is_found_in_all_its_disguises() {
        let value = "p@ss w/rd\"<&é";
        for text in [
            value.to_owned(),
            "p%40ss%20w%2Frd%22%3C%26%C3%A9".into(),
            "p%40ss%20w%2frd%22%3c%26%c3%a9".into(),
            "p%40ss+w%2Frd%22%3C%26%C3%A9".into(),
            serde_json::to_string(value).unwrap().trim_matches('"').to_owned(),
            "p@ss w/rd\\\"\\u003c\\u0026é".into(),
            "p@ss w\\/rd\\\"<&é".into(),
        ] {
            assert_eq!(masked(&[value], &format!("a {text} b")), "a *** b", "{text}");
        }
        for (before, after) in [("", ""), ("x", "y"), ("ab", "cd"), ("abc", "d"), ("user:", "")] {
            let text = STANDARD.encode(format!("{before}{value}{after}"));
            let core = STANDARD.encode(value);
            let seen = masked(&[value], &text);
            assert!(seen.contains(MASK), "{before:?} {after:?}: {seen}");
            assert!(seen.len() < MASK.len() + 4 + 4 + before.len() * 2 + after.len() * 2, "{seen} of {text} ({core})");
        }
    }

    #[test]
    fn a_value_of_several_lines_is_found_line_by_line_and_whole() {
        let value = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\nshort\r\n  indented-line\n-----END KEY-----\n";
        assert_eq!(masked(&[value], "x MIIEpAIBAAKCAQEA y"), "x *** y");
        assert_eq!(masked(&[value], "indented-line"), "***");
        assert_eq!(masked(&[value], "short"), "short");
        let whole = serde_json::to_string(value.trim_end()).unwrap();
        assert_eq!(masked(&[value], &whole), "\"***\"");
        let wrapped: Vec<String> = STANDARD
            .encode(value.trim_end())
            .as_bytes()
            .chunks(76)
            .map(|c| String::from_utf8(c.to_vec()).unwrap())
            .collect();
        assert!(wrapped.len() > 1);
        let seen = masked(&[value], &wrapped.join("\n"));
        assert!(seen.len() < 20, "{seen}");
    }

    #[test]
    fn short_values_and_an_empty_set_change_nothing() {
        assert_eq!(redactor(&["short", ""]).text("short and short"), None);
        assert_eq!(redactor(&[]).text("anything"), None);
        assert_eq!(streamed(&redactor(&["short"]), &[b"sho", b"rt"]), b"short");
    }

    #[test]
    fn overlapping_values_are_covered_together() {
        assert_eq!(masked(&["abcdef", "defghi"], "xabcdefghiy"), "x***y");
        assert_eq!(masked(&["secret-1", "secret-1-long"], "secret-1-long!"), "***!");
        assert_eq!(masked(&["aaaaaa"], &"a".repeat(50)), "***");
    }

    #[test]
    fn only_what_may_be_a_value_is_held_back() {
        let redactor = redactor(&["secret-value"]);
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        stream.pass(b"a line\nand more sec", &mut out);
        assert_eq!(out, b"a line\nand more ");
        stream.pass(b"ond", &mut out);
        assert_eq!(out, b"a line\nand more second");
        stream.pass(b" secret-val", &mut out);
        stream.pass(b"ue", &mut out);
        assert_eq!(out, b"a line\nand more second ***");
        stream.pass(b" secret", &mut out);
        stream.end(&mut out);
        assert_eq!(out, b"a line\nand more second *** secret");
    }

    #[test]
    fn a_run_of_overlapping_values_is_not_held_back_for_ever() {
        let redactor = redactor(&["aaaaaa"]);
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        for _ in 0..1000 {
            stream.pass(b"aaaa", &mut out);
            assert!(stream.held.len() < 6);
        }
        stream.pass(b"b", &mut out);
        assert_eq!(out, b"***b");
    }

    #[test]
    fn every_text_of_an_event_is_masked() {
        use kiops_events::event::*;
        let value = "secret-value";
        let redactor = redactor(&[value]);
        let s = || format!("x {value} y");
        let args = || std::collections::BTreeMap::from([("a".to_owned(), s())]);
        let result = AgentResult {
            end: AgentEnd::Failure,
            exit_code: None,
            digest: None,
            code: None,
            args: args(),
            left_out_bytes: 0,
            push_began: false,
            count: 0,
            hash: String::new(),
        };
        for mut kind in [
            EventKind::Lines(LineText { place: Place::Step(1), first: 1, at_ms: 0, text: s(), cut: vec![] }),
            EventKind::StepAnnounced { digest: "d".into(), name: s() },
            EventKind::StepStarted {
                step: 1,
                digest: "d".into(),
                name: s(),
                stage: Some(s()),
                index: None,
                total: None,
                start_ms: 0,
            },
            EventKind::Transfer { step: 1, id: s(), current: 0, total: 0, done_ms: None },
            EventKind::StepEnded { step: 1, outcome: Outcome::Error, error: Some(s()), intervals: vec![] },
            EventKind::Warning { step: None, short: s(), detail: vec![s()], url: Some(s()) },
            EventKind::Note { code: "c".into(), args: args() },
            EventKind::Result(result),
        ] {
            redactor.event(&mut kind);
            let json = serde_json::to_string(&kind).unwrap();
            assert!(!json.contains(value) && json.contains(MASK), "{json}");
        }
    }

    proptest! {
        /// Values of few letters, so that they overlap with themselves, each other and the text around them.
        #[test]
        fn pieces_of_any_size_come_out_as_the_whole_does(
            values in prop::collection::vec("[ab]{6,9}", 1..4),
            text in "[ab\n]{0,120}",
            cuts in prop::collection::vec(1usize..9, 1..60),
        ) {
            let redactor = Redactor::new(values.iter().map(String::as_bytes));
            let whole = redactor.text(&text).unwrap_or_else(|| text.clone());
            let mut pieces = Vec::new();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let out = streamed(&redactor, &pieces);
            prop_assert_eq!(String::from_utf8(out).unwrap(), whole.clone());
            for value in &values {
                prop_assert!(!whole.contains(value.as_str()));
            }
        }

        /// Any value, of one line or several, in any encoding, in the middle of anything, cut anywhere.
        #[test]
        fn no_value_leaves_in_any_encoding(
            value in "[ -~é한]{6,40}(\n[ -~]{8,30}){0,2}",
            before in "[ -)+-~\n]{0,12}",
            after in "[ -)+-~\n]{0,12}",
            encoding in 0usize..9,
            width in 20usize..80,
            cuts in prop::collection::vec(0usize..200, 0..4),
        ) {
            let value = value.trim();
            prop_assume!(!value.contains("***") && value.lines().all(|l| l.trim().len() >= MIN_VALUE_BYTES));
            let percent = |unreserved, hex, plus| {
                String::from_utf8(percent_encoded(value.as_bytes(), unreserved, hex, plus)).unwrap()
            };
            // What is in the text, and what must not be there afterwards.
            let (secret, core) = match encoding {
                0 => (value.to_owned(), value.lines().map(|l| l.trim().to_owned()).collect()),
                1 => (STANDARD.encode(value), vec![STANDARD_NO_PAD.encode(value)]),
                2 => (URL_SAFE_NO_PAD.encode(value), vec![URL_SAFE_NO_PAD.encode(value)]),
                3 => (percent(b"-._~", b"0123456789ABCDEF", false), vec![]),
                4 => (percent(b"-_.!~*'()", b"0123456789abcdef", false), vec![]),
                5 => (percent(b"*-._", b"0123456789ABCDEF", true), vec![]),
                6 => (serde_json::to_string(value).unwrap().trim_matches('"').to_owned(), vec![]),
                // Base64 of a longer text: the alignment depends on what stands before; and broken into lines.
                _ => {
                    let whole = STANDARD.encode(format!("{before}{value}{after}"));
                    let form = STANDARD_NO_PAD.encode(format!("{}{value}", "0".repeat(before.len() % 3)));
                    let skip = (before.len() % 3 * 8).div_ceil(6);
                    let end = (before.len() % 3 + value.len()) * 8 / 6;
                    let core = form[skip..end].to_owned();
                    // Up to three characters may stand alone at a line's end.
                    let core = if encoding == 7 { core } else { core[HELD_OVER_A_LINE - 1..].to_owned() };
                    let lines: Vec<&str> = whole.as_bytes().chunks(if encoding == 7 { whole.len().max(1) } else { width })
                        .map(|line| std::str::from_utf8(line).unwrap()).collect();
                    (lines.join("\n"), vec![core])
                }
            };
            let core = if core.is_empty() { vec![secret.clone()] } else { core };
            let text = if encoding > 6 { secret.clone() } else { format!("{before}{secret}{after}") };
            let redactor = Redactor::new([value.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (text.len() + 1)).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
            let out = String::from_utf8_lossy(&streamed(&redactor, &pieces)).into_owned();
            prop_assert!(out.contains(MASK), "{text} -> {out}");
            prop_assert_eq!(out.matches('\n').count(), text.matches('\n').count());
            let joined = out.replace('\n', "");
            for core in core {
                prop_assert!(!out.contains(&core), "{core} is in {out}, made of {text}");
                prop_assert!(encoding < 7 || !joined.contains(&core), "{core} is in {out}, made of {text}");
            }
        }
    }

    #[test]
    fn base64_is_found_wherever_a_line_breaks_it() {
        let value = "correct-horse-battery";
        let text = STANDARD.encode(format!("{{\"auth\": \"user:{value}\"}}"));
        for width in HELD_OVER_A_LINE..text.len() {
            let lines: Vec<&[u8]> = text.as_bytes().chunks(width).collect();
            for end in ["\n", "\r\n"] {
                let broken = lines.join(end.as_bytes());
                let whole = redactor(&[value]).text(std::str::from_utf8(&broken).unwrap()).unwrap();
                let pieces: Vec<&[u8]> = broken.chunks(3).collect();
                let out = String::from_utf8(streamed(&redactor(&[value]), &pieces)).unwrap();
                for seen in [whole, out] {
                    assert_eq!(seen.matches('\n').count(), lines.len() - 1);
                    let left = seen.replace(['\r', '\n', '*'], "");
                    // What stands before and after, and what may be let go at a line's end.
                    assert!(left.len() < text.len() - value.len() * 4 / 3 + 5, "{width}: {left} of {text}");
                }
            }
        }
    }

    #[test]
    fn a_line_waits_for_the_next_only_where_a_value_may_go_on() {
        let redactor = redactor(&["secret-value"]);
        let form = STANDARD_NO_PAD.encode("secret-value");
        let (mut stream, mut out) = (redactor.stream(), Vec::new());
        stream.pass(format!("one {}\n", &form[..3]).as_bytes(), &mut out);
        assert_eq!(out, format!("one {}\n", &form[..3]).as_bytes());
        out.clear();
        stream.pass(format!("two {}\n", &form[..6]).as_bytes(), &mut out);
        assert_eq!(out, b"two ");
        stream.pass(b"something else\n", &mut out);
        assert_eq!(out, format!("two {}\nsomething else\n", &form[..6]).as_bytes());
    }
}
