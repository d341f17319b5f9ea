//! The table of Build Profiles as an administrator writes it.

use kiops_app::model::{Profile, ProfileSize, Profiles};

const FORM: &str = "KIOPS_PROFILES should be sizes as NAME=CPU/MEMORY or NAME=CPU/MEMORY/DISK, parted by commas, such as \
    large=6/12Gi,extra-large=8/24Gi/120Gi, of the names small, medium, large, extra-large, 2x-large and 4x-large";

/// The usual table with the sizes that are named.
pub(super) fn profiles(text: &str) -> Result<Profiles, String> {
    let mut profiles = Profiles::default();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (profile, size) = entry_of(entry).ok_or_else(|| format!("{FORM}; {entry} is none"))?;
        profiles.set(profile, size);
    }
    match profiles.first_that_does_not_grow() {
        None => Ok(profiles),
        Some(profile) => Err(format!(
            "KIOPS_PROFILES should grow: {} needs more memory than the size before it, and no less CPU",
            profile.as_str()
        )),
    }
}

pub(super) fn largest(text: &str) -> Result<Profile, String> {
    Profile::parse(text).filter(|profile| *profile != Profile::Auto).ok_or_else(|| {
        "KIOPS_LARGEST_PROFILE should be small, medium, large, extra-large, 2x-large or 4x-large".to_owned()
    })
}

fn entry_of(entry: &str) -> Option<(Profile, ProfileSize)> {
    let (name, size) = entry.split_once('=')?;
    let profile = largest(name.trim()).ok()?;
    let mut amounts = size.split('/').map(str::trim);
    let mut size = ProfileSize::of(millicores(amounts.next()?)?, bytes(amounts.next()?)?);
    if let Some(disk) = amounts.next() {
        size.disk_bytes = bytes(disk)?;
    }
    amounts.next().is_none().then_some((profile, size))
}

/// Cores, such as 2 or 0.5.
fn millicores(text: &str) -> Option<u32> {
    let cores: f64 = text.parse().ok()?;
    (0.1..=1024.0).contains(&cores).then(|| (cores * 1000.0).round() as u32)
}

/// As Kubernetes writes it, in Mi, Gi or Ti.
fn bytes(text: &str) -> Option<u64> {
    let (amount, shift) = [("Mi", 20), ("Gi", 30), ("Ti", 40)]
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    let amount: u64 = amount.parse().ok().filter(|amount| (1..1 << 20).contains(amount))?;
    // Less than BuildKit itself takes is no size; more than a PiB is a slip.
    Some(amount << shift).filter(|bytes| (256 << 20..=1 << 50).contains(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_taken_by_name() {
        let table = profiles(" small=0.5/1Gi , large = 6 / 12Gi / 50Gi,").unwrap();
        let size = |profile| table.size(profile).unwrap();
        assert_eq!((size(Profile::Small).cpu_millicores, size(Profile::Small).memory_bytes), (500, 1 << 30));
        assert_eq!(size(Profile::Small).disk_bytes, 12 << 30);
        assert_eq!((size(Profile::Large).memory_bytes, size(Profile::Large).disk_bytes), (12 << 30, 50 << 30));
        assert_eq!(size(Profile::Medium), ProfileSize::MEDIUM);
        assert_eq!(profiles(""), Ok(Profiles::default()));
        assert_eq!(largest("2x-large"), Ok(Profile::TwoXLarge));
    }

    #[test]
    fn what_is_no_size_or_does_not_grow_is_refused_by_name() {
        for bad in [
            "auto=1/2Gi",
            "huge=1/2Gi",
            "small",
            "small=1",
            "small=1/2",
            "small=x/2Gi",
            "small=0/2Gi",
            "small=NaN/2Gi",
            "small=1/2Gi/3Gi/4Gi",
            "small=1/-2Gi",
            "small=1/100Mi",
            "small=1/9999999Ti",
            "small=1/18446744073709551615Gi",
        ] {
            let refusal = profiles(bad).unwrap_err();
            assert!(refusal.contains("KIOPS_PROFILES should be") && refusal.contains(bad), "{refusal}");
        }
        assert!(profiles("large=4/4Gi").unwrap_err().contains("large needs more memory"));
        assert!(profiles("large=1/6Gi").unwrap_err().contains("large needs more memory"));
        for bad in ["auto", "", "Large"] {
            assert!(largest(bad).unwrap_err().starts_with("KIOPS_LARGEST_PROFILE should be"));
        }
    }
}
