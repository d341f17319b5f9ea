//! Which size a build gets, and what is said when it was too small. Pure: what was measured comes from the store.

use super::spec;
use crate::store::{Appetite, BuildSnapshot};
use kiops_app::model::{Profile, ProfileReason, ProfileSize, Profiles};
use std::collections::BTreeMap;

/// A named size.
const CHOSEN: &str = "chosen";
/// Nothing has been measured of the service.
const NO_HISTORY: &str = "no_history";
/// By the peaks of the service's last builds.
const MEASURED: &str = "measured";
/// As by the peaks, but that a smaller one ran out of memory not long ago.
const AFTER_OOM: &str = "after_oom";
/// One up, because the attempt before ran out of memory, or of disk.
const LARGER: &str = "larger";
const LARGER_DISK: &str = "larger_disk";

/// A build may take more than its forerunners did.
const MARGIN_PERCENT: u64 = 130;
/// Less is never counted on: builds that took everything from the cache measured next to nothing.
const LEAST_NEED_BYTES: u64 = 1 << 30;
/// Of the peaks that were measured the need is that which so many of a hundred stay within.
const PERCENTILE: usize = 95;

/// A build is much slower than usual when it takes more than twice as long, and so much longer at least.
pub const SLOWER_BY_MS: i64 = 300_000;
const SLOWER_TIMES: i64 = 2;
/// What is said of it: where there is a larger size, and where there is none.
pub const SLOW_NOTES: [&str; 2] = ["much_slower", "much_slower_largest"];

/// What a build was short of that a larger size has more of.
pub struct Short {
    /// Why it gets that size, and the log's note on it.
    reason: &'static str,
    pub note: &'static str,
}

pub fn short_of(failure_code: &str) -> Option<Short> {
    match failure_code {
        "oom" => Some(Short { reason: LARGER, note: spec::LARGER }),
        "pod_disk" => Some(Short { reason: LARGER_DISK, note: spec::LARGER_DISK }),
        _ => None,
    }
}

/// A size, and why it is that.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub profile: Profile,
    pub reason: ProfileReason,
}

impl Resolved {
    fn new<const N: usize>(profile: Profile, code: &str, arguments: [(&str, String); N]) -> Self {
        let mut arguments = BTreeMap::from(arguments.map(|(name, value)| (name.to_owned(), value)));
        arguments.insert("profile".to_owned(), profile.as_str().to_owned());
        Self { profile, reason: ProfileReason { code: code.to_owned(), arguments } }
    }

    /// The code of the log's note that says it.
    pub fn note(&self) -> String {
        format!("profile_{}", self.reason.code)
    }

    /// What the build goes on with.
    pub fn within(&self, snapshot: &BuildSnapshot) -> BuildSnapshot {
        BuildSnapshot { resolved_profile: self.profile, profile_reason: Some(self.reason.clone()), ..snapshot.clone() }
    }
}

/// Why a build that is queued has the size that was chosen; what `auto` means is decided when its turn comes.
pub fn reason_at_start(choice: Profile) -> Option<ProfileReason> {
    (choice != Profile::Auto).then(|| Resolved::new(choice, CHOSEN, []).reason)
}

/// Whether `auto` still has to be given a meaning.
pub fn is_open(snapshot: &BuildSnapshot) -> bool {
    snapshot.settings.profile == Profile::Auto && snapshot.profile_reason.is_none()
}

/// What `auto` means for a service's next build.
pub fn resolve(profiles: &Profiles, appetite: &Appetite) -> Resolved {
    let measured = by_peaks(profiles, appetite)
        .unwrap_or_else(|| Resolved::new(Profile::Medium.min(profiles.largest()), NO_HISTORY, []));
    match appetite.outgrown_bytes.map(|bytes| (bytes, smallest_with(profiles, bytes + 1))) {
        Some((bytes, floor)) if floor > measured.profile => {
            Resolved::new(floor, AFTER_OOM, [("memory_bytes", bytes.to_string())])
        }
        _ => measured,
    }
}

fn by_peaks(profiles: &Profiles, appetite: &Appetite) -> Option<Resolved> {
    let mut peaks: Vec<u64> = appetite.successes.iter().filter_map(|build| build.peak_anon_bytes).collect();
    peaks.sort_unstable();
    let peak = *peaks.get((peaks.len() * PERCENTILE).div_ceil(100).checked_sub(1)?)?;
    let fits = smallest_with(profiles, (peak / 100 * MARGIN_PERCENT).max(LEAST_NEED_BYTES));
    // One step at a time: a few builds that took little do not take everything from the next one.
    let profile =
        appetite.successes.first().map_or(fits, |last| fits.max(smaller(last.profile))).min(profiles.largest());
    let arguments = [("peak_bytes", peak.to_string()), ("builds", peaks.len().to_string())];
    Some(Resolved::new(profile, MEASURED, arguments))
}

/// The smallest size with so much memory, else the largest one to grow into.
fn smallest_with(profiles: &Profiles, bytes: u64) -> Profile {
    let fits = |p: &Profile| profiles.size(*p).is_some_and(|size| size.memory_bytes >= bytes);
    Profile::ALL.into_iter().find(fits).unwrap_or(Profile::FourXLarge).min(profiles.largest())
}

/// The size before this one; the smallest is its own.
fn smaller(profile: Profile) -> Profile {
    Profile::ALL.into_iter().find(|p| p.larger() == Some(profile)).unwrap_or(profile)
}

/// What the build's steps may use.
pub fn size(profiles: &Profiles, snapshot: &BuildSnapshot) -> ProfileSize {
    profiles.size(snapshot.resolved_profile).unwrap_or(ProfileSize::MEDIUM)
}

/// The size of one more attempt after one that was short of something: once, and only where nobody chose the size.
pub fn step_up(profiles: &Profiles, snapshot: &BuildSnapshot, short: &Short) -> Option<Resolved> {
    if snapshot.settings.profile != Profile::Auto || stepped_up(snapshot) {
        return None;
    }
    let from = snapshot.resolved_profile;
    Some(Resolved::new(profiles.larger(from)?, short.reason, [("from", from.as_str().to_owned())]))
}

/// Whether one of the build's attempts was [`step_up`]'s.
pub fn stepped_up(snapshot: &BuildSnapshot) -> bool {
    snapshot.profile_reason.as_ref().is_some_and(|reason| [LARGER, LARGER_DISK].contains(&reason.code.as_str()))
}

/// What may help a build that was short of something: the next size, or the word that there is none.
pub fn advice(profiles: &Profiles, snapshot: &BuildSnapshot) -> (String, String) {
    let profile = snapshot.resolved_profile;
    let (name, named) = match profiles.larger(profile) {
        Some(larger) => ("larger", larger),
        None => ("largest", profile),
    };
    (name.to_owned(), named.as_str().to_owned())
}

/// The note on a build that is much slower than usual, with the same advice.
pub fn slow_note(
    profiles: &Profiles,
    snapshot: &BuildSnapshot,
    took_ms: i64,
    usual_ms: i64,
) -> (&'static str, BTreeMap<String, String>) {
    let (name, profile) = advice(profiles, snapshot);
    let code = if name == "larger" { SLOW_NOTES[0] } else { SLOW_NOTES[1] };
    let times = [("took_ms", took_ms), ("usual_ms", usual_ms)];
    let times = times.map(|(name, ms)| (name.to_owned(), ms.to_string()));
    (code, times.into_iter().chain([(name, profile)]).collect())
}

/// Whether a build takes far longer than its service's others.
pub fn much_slower(took_ms: i64, usual_ms: i64) -> bool {
    took_ms > usual_ms.saturating_mul(SLOWER_TIMES) && took_ms >= usual_ms.saturating_add(SLOWER_BY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PastBuild;
    use Profile::*;
    use kiops_app::locales::{Lang, message};

    const OOM: &Short = &Short { reason: LARGER, note: spec::LARGER };
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// Builds with their peaks in MiB, the newest first.
    fn past(builds: &[(Profile, u64)]) -> Appetite {
        let build = |(profile, peak): &(Profile, u64)| PastBuild {
            profile: *profile,
            peak_anon_bytes: (*peak > 0).then_some(peak * MIB),
        };
        Appetite { successes: builds.iter().map(build).collect(), outgrown_bytes: None }
    }

    fn snapshot(profile: Profile, resolved: &Resolved) -> BuildSnapshot {
        let open = spec::tests::row("main", 1).snapshot;
        let settings = kiops_app::model::BuildSettings { profile, ..open.settings.clone() };
        resolved.within(&BuildSnapshot { settings, ..open })
    }

    #[test]
    fn auto_follows_what_was_measured() {
        // Resolved profile and peak in MiB of each success, the newest first.
        type Past<'a> = &'a [(Profile, u64)];
        let cases: &[(Past<'_>, Profile, &str)] = &[
            (&[], Medium, NO_HISTORY),
            // Where nothing can be measured.
            (&[(Medium, 0), (Medium, 0)], Medium, NO_HISTORY),
            // A machine that could not measure until lately.
            (&[(Medium, 0), (Medium, 3_000)], Medium, MEASURED),
            (&[(Medium, 1)], Small, MEASURED),
            // 1.3 times as much is just within 2 GiB, and just beyond.
            (&[(Small, 1_575)], Small, MEASURED),
            (&[(Small, 1_576)], Medium, MEASURED),
            (&[(Small, 3_150)], Medium, MEASURED),
            (&[(Small, 3_151)], Large, MEASURED),
            // Up at once, as far as it takes; down by one size a build.
            (&[(Small, 30_000)], FourXLarge, MEASURED),
            (&[(FourXLarge, 100)], TwoXLarge, MEASURED),
            (&[(Large, 100), (FourXLarge, 100)], Medium, MEASURED),
            (&[(Small, 100)], Small, MEASURED),
            // More than any size has.
            (&[(FourXLarge, 60_000)], FourXLarge, MEASURED),
            // Of ten builds the hungriest counts.
            (
                &[
                    (Medium, 9),
                    (Medium, 9),
                    (Medium, 9),
                    (Medium, 9),
                    (Medium, 9),
                    (Medium, 9),
                    (Medium, 9),
                    (Medium, 9),
                    (Medium, 9),
                    (Medium, 5_000),
                ],
                Large,
                MEASURED,
            ),
        ];
        for (builds, profile, code) in cases {
            let resolved = resolve(&Profiles::DEFAULT, &past(builds));
            assert_eq!((resolved.profile, resolved.reason.code.as_str()), (*profile, *code), "{builds:?}");
            assert_eq!(resolved.reason.arguments["profile"], profile.as_str());
        }
        let arguments = resolve(&Profiles::DEFAULT, &past(&[(Small, 100), (Small, 0), (Small, 300)])).reason.arguments;
        assert_eq!((arguments["peak_bytes"].as_str(), arguments["builds"].as_str()), ("314572800", "2"));
    }

    #[test]
    fn what_was_too_small_is_not_tried_again_for_a_while() {
        for (builds, outgrown, profile, code) in [
            (past(&[]), 2 * GIB, Medium, NO_HISTORY),
            (past(&[]), 4 * GIB, Large, AFTER_OOM),
            (past(&[(Small, 100)]), 2 * GIB, Medium, AFTER_OOM),
            (past(&[(Medium, 3_000)]), 2 * GIB, Medium, MEASURED),
            // Nothing is larger.
            (past(&[(Small, 100)]), 64 * GIB, FourXLarge, AFTER_OOM),
        ] {
            let resolved = resolve(&Profiles::DEFAULT, &Appetite { outgrown_bytes: Some(outgrown), ..builds });
            assert_eq!((resolved.profile, resolved.reason.code.as_str()), (profile, code), "{outgrown}");
        }
    }

    #[test]
    fn a_build_steps_up_once_and_only_where_nobody_chose() {
        let auto = snapshot(Auto, &resolve(&Profiles::DEFAULT, &past(&[])));
        let larger = step_up(&Profiles::DEFAULT, &auto, OOM).unwrap();
        assert_eq!((larger.profile, larger.reason.arguments["from"].as_str()), (Large, "medium"));
        assert_eq!(larger.note(), spec::LARGER);
        assert!(!stepped_up(&auto));
        let after = larger.within(&auto);
        assert!(stepped_up(&after) && size(&Profiles::DEFAULT, &after) == Large.default_size().unwrap());
        let disk = step_up(&Profiles::DEFAULT, &auto, &short_of("pod_disk").unwrap()).unwrap();
        assert_eq!((disk.profile, disk.note().as_str()), (Large, spec::LARGER_DISK));
        assert!(stepped_up(&disk.within(&auto)));
        assert!(short_of("timeout").is_none(), "more would not help");
        assert_eq!(step_up(&Profiles::DEFAULT, &after, OOM), None, "once");
        assert_eq!(
            step_up(
                &Profiles::DEFAULT,
                &snapshot(Auto, &resolve(&Profiles::DEFAULT, &past(&[(FourXLarge, 60_000)]))),
                OOM
            ),
            None,
            "nothing is larger"
        );
        assert_eq!(
            step_up(&Profiles::DEFAULT, &snapshot(Small, &Resolved::new(Small, CHOSEN, [])), OOM),
            None,
            "somebody chose it"
        );
        let pair = |name: &str, profile: &str| (name.to_owned(), profile.to_owned());
        assert_eq!(advice(&Profiles::DEFAULT, &after), pair("larger", "extra-large"));
        let most = snapshot(FourXLarge, &Resolved::new(FourXLarge, CHOSEN, []));
        assert_eq!(advice(&Profiles::DEFAULT, &most), pair("largest", "4x-large"));
    }

    #[test]
    fn nothing_grows_beyond_the_largest_size_by_itself() {
        let mut profiles = Profiles::default();
        profiles.set_largest(Large);
        let auto = |appetite: &Appetite| resolve(&profiles, appetite).profile;
        assert_eq!(auto(&past(&[(Small, 30_000)])), Large);
        assert_eq!(auto(&Appetite { outgrown_bytes: Some(8 * GIB), ..past(&[(Small, 100)]) }), Large);
        // Somebody chose it once.
        assert_eq!(auto(&past(&[(FourXLarge, 100)])), Large);
        let at_the_top = snapshot(Auto, &resolve(&profiles, &past(&[(Small, 30_000)])));
        assert_eq!(step_up(&profiles, &at_the_top, OOM), None);
        assert_eq!(advice(&profiles, &at_the_top).0, "largest");
        profiles.set_largest(Small);
        assert_eq!(resolve(&profiles, &past(&[])).profile, Small);
    }

    /// The amounts may be others.
    #[test]
    fn sizes_are_found_by_what_they_have() {
        let mut profiles = Profiles::default();
        profiles.set(Small, ProfileSize::of(1_000, 3 * GIB));
        assert_eq!(resolve(&profiles, &past(&[(Small, 2_000)])).profile, Small);
        assert_eq!(resolve(&Profiles::DEFAULT, &past(&[(Small, 2_000)])).profile, Medium);
    }

    #[test]
    fn auto_is_open_until_its_turn() {
        let open = BuildSnapshot { profile_reason: None, ..snapshot(Auto, &resolve(&Profiles::DEFAULT, &past(&[]))) };
        assert!(is_open(&open) && !is_open(&resolve(&Profiles::DEFAULT, &past(&[])).within(&open)));
        assert_eq!(reason_at_start(Auto), None);
        let chosen = reason_at_start(Large).unwrap();
        assert_eq!((chosen.code.as_str(), chosen.arguments["profile"].as_str()), (CHOSEN, "large"));
        // One that was queued by an earlier version has no reason and needs none.
        assert!(!is_open(&BuildSnapshot {
            profile_reason: None,
            ..snapshot(Small, &resolve(&Profiles::DEFAULT, &past(&[])))
        }));
    }

    #[test]
    fn slow_is_twice_as_long_and_five_minutes_more() {
        const MIN: i64 = 60_000;
        for (took, usual, slow) in [
            (5 * MIN, 0, true),
            (5 * MIN - 1, 0, false),
            (6 * MIN, MIN, true),
            (6 * MIN - 1, MIN, false),
            (10 * MIN, 5 * MIN, false),
            (10 * MIN + 1, 5 * MIN, true),
            (60 * MIN, 30 * MIN, false),
            (60 * MIN + 1, 30 * MIN, true),
            (i64::MAX, i64::MAX, false),
        ] {
            assert_eq!(much_slower(took, usual), slow, "{took} of {usual}");
        }
    }

    #[test]
    fn every_reason_but_a_persons_choice_has_its_sentence_with_all_that_is_known() {
        let floor = Appetite { outgrown_bytes: Some(4 * GIB), ..past(&[]) };
        let auto = snapshot(Auto, &resolve(&Profiles::DEFAULT, &past(&[])));
        let disk = step_up(&Profiles::DEFAULT, &auto, &short_of("pod_disk").unwrap()).unwrap();
        let reasons = [
            resolve(&Profiles::DEFAULT, &past(&[])),
            resolve(&Profiles::DEFAULT, &past(&[(Small, 300)])),
            resolve(&Profiles::DEFAULT, &floor),
            step_up(&Profiles::DEFAULT, &auto, OOM).unwrap(),
            disk,
        ];
        let said = [
            &["medium"][..],
            &["small", "300 MiB", "1"],
            &["large", "4 GiB"],
            &["large", "medium"],
            &["large", "medium"],
        ];
        for (resolved, wanted) in reasons.iter().zip(said) {
            for lang in Lang::ALL {
                let text = message(lang, &format!("note.{}", resolved.note()), &resolved.reason.arguments);
                assert!(wanted.iter().all(|part| text.contains(part)) && !text.starts_with("note."), "{text}");
            }
        }
    }

    #[test]
    fn what_is_slow_is_told_with_its_times_and_what_may_help() {
        for (profile, code, named) in
            [(Large, "much_slower", "extra-large"), (FourXLarge, "much_slower_largest", "4x-large")]
        {
            let snapshot = snapshot(profile, &Resolved::new(profile, CHOSEN, []));
            let (said, args) = slow_note(&Profiles::DEFAULT, &snapshot, 725_000, 61_000);
            assert_eq!(said, code);
            for lang in Lang::ALL {
                let text = message(lang, &format!("note.{said}"), &args);
                assert!(["12:05", "1:01", named].iter().all(|part| text.contains(part)), "{text}");
            }
        }
    }
}
