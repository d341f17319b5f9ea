//! Durations, sizes and times as people read them. Nothing here asks a clock: server and browser write the same.

use crate::locales::{t, tf};

/// `0:09`, `1:12`, `1:02:03`: elapsed time that counts up without changing its shape.
pub fn clock(ms: i64) -> String {
    let s = ms.max(0) / 1000;
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

/// `0.4 s`, `9.4 s`, `1 min 9 s`, `1 h 2 min`.
pub fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    let s = ms / 1000;
    if s < 60 {
        return tf("duration.s", &[("s", &tenths(ms))]);
    }
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    let (h_text, m_text, s_text) = (h.to_string(), m.to_string(), s.to_string());
    if h > 0 {
        tf("duration.h_min", &[("h", &h_text), ("min", &m_text)])
    } else {
        tf("duration.min_s", &[("min", &m_text), ("s", &s_text)])
    }
}

/// `9.4` of 9,412 ms.
pub fn tenths(ms: i64) -> String {
    let tenths = (ms.max(0) + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `84.2 MB`: decimal, as registries count.
pub fn size(bytes: i64) -> String {
    scaled(bytes.max(0) as u64, 1000, ["B", "kB", "MB", "GB", "TB"])
}

/// `1.9 GiB`: binary, as memory is given.
pub fn memory(bytes: u64) -> String {
    scaled(bytes, 1024, ["B", "KiB", "MiB", "GiB", "TiB"])
}

fn scaled(bytes: u64, step: u64, units: [&str; 5]) -> String {
    let tenths = |divisor: u64| (u128::from(bytes) * 10 + u128::from(divisor) / 2) / u128::from(divisor);
    let (mut unit, mut divisor) = (0, 1);
    // Rounded to tenths first, so that 999.96 kB reads 1 MB.
    while unit < 4 && tenths(divisor) >= u128::from(step) * 10 {
        unit += 1;
        divisor *= step;
    }
    let tenths = tenths(divisor);
    if tenths >= 1000 || tenths % 10 == 0 {
        format!("{} {}", (tenths + 5) / 10, units[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
    }
}

/// `1.7` of 1,700 millicores.
pub fn cores(millicores: u32) -> String {
    let tenths = (millicores + 50) / 100;
    if tenths.is_multiple_of(10) { (tenths / 10).to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// `1,204,000`
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `12 min ago`, with the server's clock at `now_ms`.
pub fn ago(at_ms: i64, now_ms: i64) -> String {
    let s = (now_ms - at_ms).max(0) / 1000;
    let (key, n) = match s {
        0..10 => return t("ago.now"),
        10..60 => ("ago.s", s),
        60..3_600 => ("ago.min", s / 60),
        3_600..86_400 => ("ago.h", s / 3_600),
        86_400..2_592_000 => ("ago.days", s / 86_400),
        _ => return date(at_ms),
    };
    tf(key, &[("n", &n.to_string())])
}

/// `2026-11-23`, UTC.
pub fn date(at_ms: i64) -> String {
    let (y, m, d) = civil(at_ms.div_euclid(86_400_000));
    format!("{y:04}-{m:02}-{d:02}")
}

/// `2026-11-23 15:12:03 UTC`
pub fn moment(at_ms: i64) -> String {
    let s = at_ms.div_euclid(1000).rem_euclid(86_400);
    format!("{} {:02}:{:02}:{:02} UTC", date(at_ms), s / 3600, s / 60 % 60, s % 60)
}

/// For `datetime` attributes.
pub fn iso(at_ms: i64) -> String {
    moment(at_ms).replacen(' ', "T", 1).replace(" UTC", "Z")
}

/// Days since 1970 to year, month, day (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = doy - (153 * mp + 2) / 5 + 1;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(m <= 2), m, d)
}

/// Marks of a time axis that ends at or after `end_ms`: the step between them and how many there are after zero.
pub fn axis(end_ms: i64) -> (i64, i64) {
    const STEPS: [i64; 16] = [
        100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_200_000,
        1_800_000, 3_600_000,
    ];
    let end = end_ms.max(300);
    let step = STEPS.into_iter().find(|s| end <= s * 4).unwrap_or(3_600_000 * (end / 14_400_000 + 1));
    (step, (end + step - 1) / step)
}

/// A mark's text: `20 s`, `2 min`.
pub fn mark(ms: i64) -> String {
    if ms == 0 {
        "0".into()
    } else if ms % 3_600_000 == 0 {
        tf("duration.h", &[("h", &(ms / 3_600_000).to_string())])
    } else if ms % 60_000 == 0 {
        tf("duration.min", &[("min", &(ms / 60_000).to_string())])
    } else if ms % 1000 == 0 {
        tf("duration.s", &[("s", &(ms / 1000).to_string())])
    } else if ms > 60_000 {
        clock(ms)
    } else {
        tf("duration.s", &[("s", &tenths(ms))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        for (ms, text) in [(0, "0:00"), (9_999, "0:09"), (72_000, "1:12"), (3_723_000, "1:02:03"), (-5, "0:00")] {
            assert_eq!(clock(ms), text);
        }
        assert_eq!((tenths(9_412), tenths(9_950), tenths(49)), ("9.4".into(), "10.0".into(), "0.0".into()));
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1 kB"),
            (84_200_000, "84.2 MB"),
            (999_960, "1 MB"),
            (412_900, "413 kB"),
            (1_540_000_000, "1.5 GB"),
            (i64::MAX, "9223372 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((memory(4 << 30), memory(1_990_000_000)), ("4 GiB".into(), "1.9 GiB".into()));
        assert_eq!((cores(1_700), cores(2_000), cores(40)), ("1.7".into(), "2".into(), "0".into()));
        assert_eq!((count(7), count(1_000), count(1_204_000)), ("7".into(), "1,000".into(), "1,204,000".into()));
    }

    #[test]
    fn dates() {
        for (at, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_795_446_723_000, "2026-11-23 15:12:03 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(moment(at), text);
        }
        assert_eq!(iso(0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn axes_have_few_round_marks() {
        for (end, want) in [
            (0, (100, 3)),
            (9_000, (5_000, 2)),
            (38_000, (10_000, 4)),
            (61_000, (20_000, 4)),
            (7_200_000, (1_800_000, 4)),
        ] {
            assert_eq!(axis(end), want, "{end}");
        }
        for end in (0..100_000_000).step_by(777_777) {
            let (step, n) = axis(end);
            assert!((1..=4).contains(&n) && step * n >= end, "{end}");
        }
    }
}
