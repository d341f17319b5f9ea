//! Colours of a terminal as classes. A program's output is text and only text: colours and weights are kept, every other
//! control sequence is dropped, and nothing becomes HTML.

use std::borrow::Cow;

/// A stretch of text with one look; an empty class is the plain one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub text: String,
    pub class: String,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    /// 0 is none; 1 to 16 are the colours.
    fore: u8,
    back: u8,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
    inverse: bool,
}

impl Look {
    fn class(self) -> String {
        let (fore, back) = if self.inverse { (self.back, self.fore) } else { (self.fore, self.back) };
        let mut out = String::new();
        let mut add = |name: &str| {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(name);
        };
        if fore > 0 {
            add(&format!("f{}", fore - 1));
        }
        if back > 0 {
            add(&format!("b{}", back - 1));
        }
        if self.inverse && fore == 0 && back == 0 {
            add("inv");
        }
        for (on, name) in [(self.bold, "bold"), (self.dim, "dim"), (self.italic, "ital"), (self.underline, "under")] {
            if on {
                add(name);
            }
        }
        out
    }

    fn apply(&mut self, codes: &str) {
        let mut codes = codes.split([';', ':']).map(|c| c.parse::<u16>().unwrap_or_default());
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underline = true,
                7 => self.inverse = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underline = false,
                27 => self.inverse = false,
                30..=37 => self.fore = (code - 29) as u8,
                39 => self.fore = 0,
                40..=47 => self.back = (code - 39) as u8,
                49 => self.back = 0,
                90..=97 => self.fore = (code - 81) as u8,
                100..=107 => self.back = (code - 91) as u8,
                38 | 48 => {
                    let colour = match codes.next() {
                        Some(5) => from_256(codes.next().unwrap_or_default()),
                        Some(2) => {
                            let mut part = || codes.next().unwrap_or_default().min(255);
                            nearest(part(), part(), part())
                        }
                        _ => 0,
                    };
                    if code == 38 {
                        self.fore = colour;
                    } else {
                        self.back = colour;
                    }
                }
                _ => {}
            }
        }
    }
}

fn from_256(n: u16) -> u8 {
    match n {
        0..=15 => n as u8 + 1,
        16..=231 => {
            let level = |n: u16| if n == 0 { 0 } else { 55 + n * 40 };
            let n = n - 16;
            nearest(level(n / 36), level(n / 6 % 6), level(n % 6))
        }
        _ => {
            let grey = 8 + n.saturating_sub(232).min(23) * 10;
            nearest(grey, grey, grey)
        }
    }
}

/// The nearest of the sixteen: the style sheet decides what they look like, in light and in dark.
fn nearest(r: u16, g: u16, b: u16) -> u8 {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max - min < 40 {
        return match max {
            0..64 => 1,
            64..150 => 9,
            150..220 => 8,
            _ => 16,
        };
    }
    let half = min + (max - min) / 2;
    let bits = u8::from(r > half) | u8::from(g > half) << 1 | u8::from(b > half) << 2;
    bits + if max > 200 { 9 } else { 1 }
}

fn is_plain(line: &str) -> bool {
    // U+009B begins with 0xC2.
    !line.bytes().any(|b| b < 0x20 || b == 0x7f || b == 0xc2) || !line.chars().any(char::is_control)
}

/// Cuts a line into stretches of one look.
pub fn spans(line: &str) -> Vec<Span> {
    if is_plain(line) {
        return vec![Span { text: line.to_owned(), class: String::new() }];
    }
    let mut out: Vec<Span> = Vec::new();
    let mut look = Look::default();
    let mut text = String::new();
    let mut chars = line.chars().peekable();
    let flush = |text: &mut String, look: Look, out: &mut Vec<Span>| {
        if !text.is_empty() {
            out.push(Span { text: std::mem::take(text), class: look.class() });
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => control(&mut chars, &mut text, &mut look, &mut out, flush),
                // Titles and links: up to BEL or ESC \.
                Some(']' | 'P' | '^' | '_' | 'X') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || c == '\u{9c}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                Some('(' | ')' | '*' | '+' | '#' | '%' | ' ') => drop(chars.next()),
                _ => {}
            },
            '\u{9b}' => control(&mut chars, &mut text, &mut look, &mut out, flush),
            '\t' => text.push('\t'),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    flush(&mut text, look, &mut out);
    out
}

/// The rest of `ESC [ …`: colours are taken, everything else is dropped.
fn control(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    text: &mut String,
    look: &mut Look,
    out: &mut Vec<Span>,
    flush: impl Fn(&mut String, Look, &mut Vec<Span>),
) {
    let mut codes = String::new();
    while let Some(c) = chars.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)) {
        codes.push(c);
    }
    if chars.next_if_eq(&'m').is_some() {
        let before = *look;
        look.apply(&codes);
        if *look != before {
            flush(text, before, out);
        }
    } else {
        chars.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
    }
}

/// The line without any control sequence.
pub fn plain(line: &str) -> Cow<'_, str> {
    if is_plain(line) { line.into() } else { spans(line).into_iter().map(|s| s.text).collect::<String>().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Vec<(String, String)> {
        spans(line).into_iter().map(|s| (s.text, s.class)).collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn colours_become_classes() {
        for (line, want) in [
            ("plain", pairs(&[("plain", "")])),
            ("", pairs(&[("", "")])),
            ("\u{1b}[31mred\u{1b}[0m and", pairs(&[("red", "f1"), (" and", "")])),
            ("\u{1b}[1;32mok\u{1b}[22m still\u{1b}[m", pairs(&[("ok", "f2 bold"), (" still", "f2")])),
            ("a\u{1b}[91;44mb", pairs(&[("a", ""), ("b", "f9 b4")])),
            ("\u{1b}[38;5;196mx\u{1b}[48;5;16my", pairs(&[("x", "f9"), ("y", "f9 b0")])),
            ("\u{1b}[38;2;10;200;10mx", pairs(&[("x", "f2")])),
            ("\u{1b}[7mx", pairs(&[("x", "inv")])),
            ("\u{1b}[7;31mx", pairs(&[("x", "b1")])),
            ("\u{1b}[2mx\u{1b}[3;4my", pairs(&[("x", "dim"), ("y", "dim ital under")])),
            ("\u{9b}33mx", pairs(&[("x", "f3")])),
        ] {
            assert_eq!(shown(line), want, "{line:?}");
        }
    }

    #[test]
    fn everything_else_is_dropped() {
        for (line, want) in [
            ("\u{1b}[2K\u{1b}[1Gdone", "done"),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            ("a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\b", "alinkb"),
            ("a\u{1b}(Bb", "ab"),
            ("a\u{0}\u{8}\u{7f}b", "ab"),
            ("tab\there", "tab\there"),
            ("cut \u{1b}", "cut "),
            ("cut \u{1b}[", "cut "),
            ("cut \u{1b}[31", "cut "),
            ("<b>\u{1b}[0m&amp;", "<b>&amp;"),
            ("\u{1b}[?25lx\u{1b}[?25h", "x"),
        ] {
            assert_eq!(plain(line), want, "{line:?}");
        }
    }

    #[test]
    fn any_text_is_survived() {
        let mut seed = 7u32;
        for _ in 0..2_000 {
            let line: String = (0..40)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    ['\u{1b}', '[', ']', ';', 'm', '3', '8', '5', '\u{9b}', '가', '\u{7}', 'x']
                        [(seed >> 16) as usize % 12]
                })
                .collect();
            assert!(!plain(&line).chars().any(char::is_control));
        }
    }
}
