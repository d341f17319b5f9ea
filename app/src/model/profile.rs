//! The sizes of builds: their names, and the amounts behind them.

use serde::{Deserialize, Serialize};

/// The size of a build. The amounts behind the names are an administrator's table ([`Profiles`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    #[default]
    Auto,
    Small,
    Medium,
    Large,
    ExtraLarge,
    #[serde(rename = "2x-large")]
    TwoXLarge,
    #[serde(rename = "4x-large")]
    FourXLarge,
}

impl Profile {
    /// In the order people choose from.
    pub const ALL: [Self; 7] =
        [Self::Auto, Self::Small, Self::Medium, Self::Large, Self::ExtraLarge, Self::TwoXLarge, Self::FourXLarge];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::ExtraLarge => "extra-large",
            Self::TwoXLarge => "2x-large",
            Self::FourXLarge => "4x-large",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }

    /// The next size; none after the last one, nor of `auto`, which is no size.
    pub fn larger(self) -> Option<Self> {
        Self::ALL.into_iter().find(|p| self != Self::Auto && *p > self)
    }

    /// As the table comes; `auto` has no size of its own.
    pub fn default_size(self) -> Option<ProfileSize> {
        Profiles::DEFAULT.size(self)
    }
}

/// What a build may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileSize {
    pub cpu_millicores: u32,
    pub memory_bytes: u64,
    /// Of its node's disk, in a Pod.
    pub disk_bytes: u64,
}

const GIB: u64 = 1 << 30;

impl ProfileSize {
    /// What a build gets of which nothing is known.
    pub const MEDIUM: Self = Self::of(2_000, 4 * GIB);

    /// With the disk that goes with so much memory: a checkout, an unpacked image twice over, and what its steps leave.
    pub const fn of(cpu_millicores: u32, memory_bytes: u64) -> Self {
        Self { cpu_millicores, memory_bytes, disk_bytes: 8 * GIB + memory_bytes * 4 }
    }
}

/// The amounts behind the names, and how far a build grows by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profiles {
    /// From small to 4x-large.
    sizes: [ProfileSize; 6],
    /// A larger one is taken only where somebody chooses it.
    largest: Profile,
}

impl Profiles {
    pub const DEFAULT: Self = Self {
        sizes: [
            ProfileSize::of(1_000, 2 * GIB),
            ProfileSize::MEDIUM,
            ProfileSize::of(4_000, 8 * GIB),
            ProfileSize::of(8_000, 16 * GIB),
            ProfileSize::of(16_000, 32 * GIB),
            ProfileSize::of(32_000, 64 * GIB),
        ],
        largest: Profile::FourXLarge,
    };

    pub fn size(&self, profile: Profile) -> Option<ProfileSize> {
        self.sizes.get((profile as usize).checked_sub(1)?).copied()
    }

    /// `auto` has no size and keeps none.
    pub fn set(&mut self, profile: Profile, size: ProfileSize) {
        if let Some(place) = (profile as usize).checked_sub(1).and_then(|at| self.sizes.get_mut(at)) {
            *place = size;
        }
    }

    pub fn largest(&self) -> Profile {
        self.largest
    }

    pub fn set_largest(&mut self, profile: Profile) {
        self.largest = profile;
    }

    /// The next size, where there is one to grow into.
    pub fn larger(&self, profile: Profile) -> Option<Profile> {
        profile.larger().filter(|larger| *larger <= self.largest)
    }

    /// The first that is no larger than the one before it: growing must help.
    pub fn first_that_does_not_grow(&self) -> Option<Profile> {
        let grows =
            |w: &[ProfileSize]| w[0].memory_bytes < w[1].memory_bytes && w[0].cpu_millicores <= w[1].cpu_millicores;
        let at = self.sizes.windows(2).position(|w| !grows(w))?;
        Profile::ALL.get(at + 2).copied()
    }
}

impl Default for Profiles {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_one_spelling_and_grow() {
        let spelled: Vec<_> = Profile::ALL.iter().map(|p| serde_json::to_value(p).unwrap()).collect();
        assert_eq!(spelled, ["auto", "small", "medium", "large", "extra-large", "2x-large", "4x-large"]);
        for p in Profile::ALL {
            assert_eq!(Profile::parse(p.as_str()), Some(p));
        }
        assert_eq!(Profiles::DEFAULT.first_that_does_not_grow(), None);
        let grown: Vec<_> = std::iter::successors(Some(Profile::Small), |p| p.larger()).collect();
        assert_eq!((&grown[..], Profile::Auto.larger()), (&Profile::ALL[1..], None));
    }

    #[test]
    fn the_table_may_be_another_and_end_earlier() {
        let mut profiles = Profiles::default();
        assert_eq!((profiles.size(Profile::Auto), profiles.size(Profile::Medium)), (None, Some(ProfileSize::MEDIUM)));
        profiles.set(Profile::Large, ProfileSize::of(6_000, 12 * GIB));
        profiles.set(Profile::Auto, ProfileSize::MEDIUM);
        assert_eq!(profiles.size(Profile::Large).unwrap().memory_bytes, 12 * GIB);
        assert_eq!(profiles.first_that_does_not_grow(), None);
        profiles.set(Profile::Large, ProfileSize::of(1_000, 12 * GIB));
        assert_eq!(profiles.first_that_does_not_grow(), Some(Profile::Large));
        profiles.set_largest(Profile::ExtraLarge);
        assert_eq!(profiles.larger(Profile::Large), Some(Profile::ExtraLarge));
        assert_eq!((profiles.larger(Profile::ExtraLarge), profiles.larger(Profile::Auto)), (None, None));
        let sent = serde_json::to_string(&profiles).unwrap();
        assert_eq!(serde_json::from_str::<Profiles>(&sent).unwrap(), profiles);
    }
}
