//! Keeping secret values out of everything that is written down.
//!
//! Knows values and their disguises, not where they come from. A value is found as it is and also base64-encoded (at each
//! of the three alignments it can have inside a longer text), percent-encoded and JSON-escaped. Every byte that belongs to
//! any such occurrence, overlapping ones too, is covered by [`MASK`]. In a stream only what may be the beginning of a
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
/// Line widths at which programs break base64: `base64` itself, and PEM.
const BASE64_WIDTHS: [usize; 2] = [76, 64];

/// Finds a set of values; cheap to clone.
#[derive(Clone)]
pub struct Redactor(Arc<Patterns>);

struct Patterns {
    /// None where there is nothing to look for.
    finder: Option<AhoCorasick>,
    sorted: Vec<Vec<u8>>,
    longest: usize,
}

impl Redactor {
    /// Values of several lines count as a whole (in encodings that make one line of them) and line by line.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut patterns = BTreeSet::new();
        for value in values {
            let value = trim_line_ends(value);
            disguises(value, &mut patterns);
            for line in value.split(|b| *b == b'\n') {
                disguises(line.trim_ascii(), &mut patterns);
            }
        }
        let sorted: Vec<Vec<u8>> = patterns.into_iter().collect();
        let finder = (!sorted.is_empty())
            .then(|| AhoCorasick::builder().match_kind(MatchKind::Standard).build(&sorted).ok())
            .flatten();
        let longest = sorted.iter().map(Vec::len).max().unwrap_or_default();
        Self(Arc::new(Patterns { finder, sorted, longest }))
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
        if self.0.finder.is_none() {
            return;
        }
        match kind {
            // No pattern holds a line end, so the lines stay as many as they are.
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
        Stream { redactor: self.clone(), held: Vec::new(), masked: None }
    }
}

impl Patterns {
    /// The stretches of `text` that belong to values, in order, those that touch made one.
    fn covered(&self, text: &[u8]) -> Vec<(usize, usize)> {
        let Some(finder) = self.finder.as_ref().filter(|f| f.is_match(text)) else { return Vec::new() };
        let mut found: Vec<(usize, usize)> = finder.find_overlapping_iter(text).map(|m| (m.start(), m.end())).collect();
        found.sort_unstable();
        merge(found)
    }

    /// Where the longest end of `text` begins that may be the beginning of a value.
    fn open_end(&self, text: &[u8]) -> usize {
        // No pattern holds a line end.
        let line = text.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let from = text.len().saturating_sub(self.longest.saturating_sub(1)).max(line);
        (from..text.len()).find(|at| self.begins_one(&text[*at..])).unwrap_or(text.len())
    }

    fn begins_one(&self, piece: &[u8]) -> bool {
        let at = self.sorted.partition_point(|p| p.as_slice() < piece);
        // The patterns that begin with the piece stand together, the shortest first; that one may be the piece itself.
        self.sorted[at..].iter().take(2).any(|p| p.len() > piece.len() && p.starts_with(piece))
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
    /// The last thing written is a mask, and this many bytes of `held` belong to what it covers.
    masked: Option<usize>,
}

impl Stream {
    fn write(&mut self, bytes: &[u8], ended: bool, out: &mut Vec<u8>) {
        let patterns = self.redactor.0.clone();
        if patterns.finder.is_none() {
            return out.extend_from_slice(bytes);
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        let open = if ended { text.len() } else { patterns.open_end(&text) };
        if open > 0 {
            let mut covered = patterns.covered(&text);
            let before = self.masked.take();
            if let Some(masked) = before {
                covered.insert(0, (0, masked));
                covered = merge(covered);
            }
            let mut at = 0;
            for (start, end) in covered.into_iter().take_while(|(start, _)| *start < open) {
                out.extend_from_slice(&text[at..start]);
                if start > 0 || before.is_none() {
                    out.extend_from_slice(MASK.as_bytes());
                }
                at = end.min(open);
                self.masked = (end >= open).then(|| end - open);
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
        self.masked = None;
    }
}

fn trim_line_ends(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(0, |i| i + 1);
    &value[..end]
}

/// Everything a value may look like.
fn disguises(value: &[u8], patterns: &mut BTreeSet<Vec<u8>>) {
    if value.len() < MIN_VALUE_BYTES {
        return;
    }
    let mut add = |pattern: Vec<u8>| {
        if pattern.len() >= MIN_VALUE_BYTES && !pattern.contains(&b'\n') {
            patterns.insert(pattern);
        }
    };
    add(value.to_vec());
    for base64 in base64_forms(value) {
        for width in BASE64_WIDTHS {
            if base64.len() > width {
                base64.chunks(width).for_each(|line| add(line.to_vec()));
            }
        }
        add(base64);
    }
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

        /// Any value, in any encoding, in the middle of anything, cut anywhere.
        #[test]
        fn no_value_leaves_in_any_encoding(
            value in "[ -~é한]{6,40}",
            before in "[ -)+-~\n]{0,12}",
            after in "[ -)+-~\n]{0,12}",
            encoding in 0usize..6,
            cut in 0usize..80,
        ) {
            prop_assume!(!value.contains("***") && value.trim().len() >= MIN_VALUE_BYTES);
            let value = value.trim();
            let encode = |v: &str| match encoding {
                0 => v.to_owned(),
                1 => STANDARD.encode(v),
                2 => URL_SAFE_NO_PAD.encode(v),
                3 => String::from_utf8(percent_encoded(v.as_bytes(), b"-._~", b"0123456789ABCDEF", false)).unwrap(),
                4 => serde_json::to_string(v).unwrap().trim_matches('"').to_owned(),
                // Base64 of a longer text: the alignment depends on what stands before.
                _ => STANDARD.encode(format!("{before}{v}{after}")),
            };
            let secret = encode(value);
            let text = if encoding == 5 { secret.clone() } else { format!("{before}{secret}{after}") };
            let redactor = Redactor::new([value.as_bytes()]);
            let cut = cut.min(text.len());
            let out = streamed(&redactor, &[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
            let out = String::from_utf8_lossy(&out);
            prop_assert!(out.contains(MASK), "{text} -> {out}");
            if encoding != 5 {
                prop_assert!(!out.contains(&secret), "{text} -> {out}");
            }
        }
    }
}
