//! Flyte's enumerations: read by name or number, written by name.

/// Defines an enumeration of Flyte's. The first value is what counts where none is set.
macro_rules! enumeration {
    (
        $(#[$about:meta])*
        $name:ident { $first:ident $first_text:literal $first_doc:literal $(, $value:ident $text:literal $doc:literal)* $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum $name {
            #[doc = $first_doc]
            #[default]
            $first,
            $(#[doc = $doc] $value,)*
        }

        impl $name {
            /// All values, by number.
            pub const ALL: &[Self] = &[Self::$first $(, Self::$value)*];

            /// The name, as Flyte spells it.
            pub const fn name(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $(Self::$value => $text,)*
                }
            }

            /// The number in Flyte's messages.
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The value with this number, if there is one.
            pub fn of_number(number: i64) -> Option<Self> {
                usize::try_from(number).ok().and_then(|number| Self::ALL.get(number)).copied()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let names = Self::ALL.iter().map(|value| (value.name(), *value)).collect();
                deserializer.deserialize_any($crate::matchable::kinds::enumeration::NameOrNumber(names))
            }
        }
    };
}

pub(super) use enumeration;

use std::fmt;

use serde::de::{Error, Visitor};

/// Reads one of these, whose place in the list is its number.
pub(super) struct NameOrNumber<T>(pub(super) Vec<(&'static str, T)>);

impl<T: Copy> NameOrNumber<T> {
    fn find<E: Error>(
        &self,
        found: impl fmt::Display,
        is_it: impl Fn(usize, &str) -> bool,
    ) -> Result<T, E> {
        let it = self.0.iter().enumerate().find(|(number, (name, _))| is_it(*number, name));
        it.map(|(_, (_, value))| *value).ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            E::custom(format_args!("{found} is none of {names}, nor the number of one"))
        })
    }
}

impl<T: Copy> Visitor<'_> for NameOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name or its number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        self.find(format_args!("{text:?}"), |_, name| name == text)
    }

    fn visit_u64<E: Error>(self, found: u64) -> Result<T, E> {
        self.find(found, |number, _| u64::try_from(number) == Ok(found))
    }

    fn visit_i64<E: Error>(self, found: i64) -> Result<T, E> {
        self.find(found, |number, _| i64::try_from(number) == Ok(found))
    }
}
