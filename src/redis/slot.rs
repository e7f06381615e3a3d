//! Which part of a cluster has a key.

use crc::{CRC_16_XMODEM, Crc};

const CHECKSUM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// One of the 16 384 parts that the servers of a cluster share among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u16);

impl Slot {
    const COUNT: u16 = 16384;

    /// The slot of a key: of what stands in its first braces, if anything does.
    pub(super) fn of(key: &str) -> Self {
        let tag = || key.split_once('{')?.1.split_once('}').map(|(tag, _)| tag);
        let tag = tag().filter(|tag| !tag.is_empty()).unwrap_or(key);
        Self(CHECKSUM.checksum(tag.as_bytes()) % Self::COUNT)
    }

    /// The slot with this number, if there is one.
    pub(super) fn numbered(number: i64) -> Option<Self> {
        u16::try_from(number).ok().filter(|&number| number < Self::COUNT).map(Self)
    }
}

impl From<Slot> for usize {
    fn from(slot: Slot) -> Self {
        slot.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        // As `CLUSTER KEYSLOT` answers.
        for (key, slot) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("a{foo}{bar}", 12182),
            ("foo{}", 5542),
            ("foo{{bar}}zap", 4015),
        ] {
            assert_eq!(Some(Slot::of(key)), Slot::numbered(slot), "{key}");
        }
    }

    #[test]
    fn there_is_no_slot_beyond_the_last() {
        assert!(Slot::numbered(16383).is_some());
        assert_eq!(Slot::numbered(16384), None);
        assert_eq!(Slot::numbered(-1), None);
    }
}
