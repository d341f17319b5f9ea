//! The second look for secrets. The agent has masked what it knew before it wrote; the server masks again what it knows
//! itself before it stores, so that one mistake in an agent is not a secret in the database.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem::Finder;
use serde_json::Value;

const MASK: &str = "***";
/// A shorter value would be found everywhere; such secrets are refused when they are entered.
const MIN_BYTES: usize = 6;

#[derive(Default)]
pub struct Redactor {
    /// As text, and ready to be looked for as JSON writes it inside a string.
    known: Vec<(String, Finder<'static>)>,
}

impl Redactor {
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = Vec::new();
        for line in values.into_iter().flat_map(str::lines).map(str::trim).filter(|l| l.len() >= MIN_BYTES) {
            let escaped = Value::from(line).to_string();
            let inner = &escaped[1..escaped.len() - 1];
            known.push((line.to_owned(), Finder::new(inner.as_bytes()).into_owned()));
        }
        // The longest first: one value may be the beginning of another.
        known.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { known }
    }

    /// The payload without what must not be stored; none where it holds nothing of it.
    pub fn payload(&self, payload: &[u8]) -> Option<Vec<u8>> {
        if !self.known.iter().any(|(_, finder)| finder.find(payload).is_some()) {
            return None;
        }
        // Rare: only now it is worth knowing what is text and what is structure.
        let mut event: Value = serde_json::from_slice(payload).ok()?;
        let mut found = false;
        if let Some(fields) = event.as_object_mut() {
            for (name, value) in fields {
                // The kind and the place are the product's own words.
                if name != "k" && name != "place" {
                    found |= self.mask(value);
                }
            }
        }
        found.then(|| event.to_string().into_bytes())
    }

    fn mask(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => {
                let mut found = false;
                for (known, _) in &self.known {
                    if text.contains(known) {
                        *text = text.replace(known, MASK);
                        found = true;
                    }
                }
                found
            }
            Value::Array(items) => items.iter_mut().fold(false, |found, item| self.mask(item) | found),
            Value::Object(fields) => fields.values_mut().fold(false, |found, item| self.mask(item) | found),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

/// How a login stands in Docker's `config.json` and in a Basic header.
pub fn basic(user: &str, password: &str) -> String {
    BASE64_STANDARD.encode(format!("{user}:{password}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_events::{AgentEvent, EventKind, LineText, Place};

    fn payload(text: &str) -> Vec<u8> {
        let line = LineText { place: Place::Step(1), first: 1, at_ms: 0, text: text.into(), cut: vec![] };
        let event = AgentEvent { attempt: 1, seq: 9, offset_ms: 4, kind: EventKind::Lines(line) };
        serde_json::to_vec(&event).unwrap()
    }

    fn text(payload: &[u8]) -> String {
        match serde_json::from_slice::<AgentEvent>(payload).unwrap().kind {
            EventKind::Lines(lines) => lines.text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_it_knows_is_masked_and_everything_else_stays() {
        let redactor =
            Redactor::new(["hunter22", "hunter22-and-more", "with\"quote\\", "first line\nsecond line", "short"]);
        for (given, kept) in [
            ("token hunter22 here", "token *** here"),
            ("hunter22-and-more", "***"),
            ("a with\"quote\\ b", "a *** b"),
            ("x\nfirst line\ny", "x\n***\ny"),
        ] {
            assert_eq!(text(&redactor.payload(&payload(given)).unwrap()), kept);
        }
        for clean in ["nothing", "short", "hunter2"] {
            assert_eq!(redactor.payload(&payload(clean)), None, "{clean}");
        }
        assert_eq!(Redactor::default().payload(&payload("hunter22")), None);
    }

    #[test]
    fn a_secret_that_looks_like_structure_breaks_nothing() {
        let redactor = Redactor::new(["attempt", "\"place\":", "lines\",\""]);
        let event = payload("one attempt of \"place\": and more");
        let masked = redactor.payload(&event).unwrap();
        assert_eq!(text(&masked), "one *** of *** and more");
        assert_eq!(serde_json::from_slice::<AgentEvent>(&masked).unwrap().seq, 9);
        assert_eq!(redactor.payload(&payload("nothing")), None);
    }
}
