//! Attributes as the bytes that FlyteAdmin stores: a `flyteidl.admin.MatchingAttributes`, without an envelope.

mod decode;
mod encode;
mod messages;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;

use prost::Message;

use super::kind::InvalidField;
use super::kinds::MatchingAttributes;

/// Why bytes are no attributes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlyteBytesError {
    /// They are no `MatchingAttributes` in the encoding of Protocol Buffers: cut off, for example.
    #[error("not a flyteidl.admin.MatchingAttributes")]
    Malformed {
        /// What the decoder says.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// They have a field that no kind known here has: attributes of a kind that is newer, or somebody's own.
    #[error("MatchingAttributes has the unknown field {tag}; 1 to 8 are known")]
    UnknownField {
        /// The field's tag.
        tag: u64,
    },
    /// A field has a value that it cannot have.
    #[error(transparent)]
    InvalidField(#[from] InvalidField),
}

impl MatchingAttributes {
    /// The attributes as FlyteAdmin stores them. The same attributes always make the same bytes: maps are in order of their keys.
    ///
    /// What [`validate`](Self::validate) refuses may not be what is read again.
    pub fn to_flyte_bytes(&self) -> Vec<u8> {
        messages::MatchingAttributes::from(self.clone()).encode_to_vec()
    }

    /// Reads what FlyteAdmin stores; nothing if no kind's attributes are there.
    ///
    /// The attributes may break rules of their kind that Flyte has not. Fields that nobody knew when this was written are
    /// passed over, as everywhere in Protocol Buffers, except that one of an unknown kind is an error.
    ///
    /// # Errors
    ///
    /// As [`FlyteBytesError`] tells them.
    ///
    /// # Example
    ///
    /// ```
    /// use tokenpool::matchable::{ExecutionQueueAttributes, MatchingAttributes};
    ///
    /// let queues = ExecutionQueueAttributes { tags: vec!["critical".to_owned()] };
    /// let bytes = MatchingAttributes::from(queues.clone()).to_flyte_bytes();
    /// assert_eq!(bytes, b"\x1a\x0a\x0a\x08critical");
    /// assert_eq!(MatchingAttributes::from_flyte_bytes(&bytes)?, Some(queues.into()));
    /// # Ok::<(), tokenpool::matchable::FlyteBytesError>(())
    /// ```
    pub fn from_flyte_bytes(bytes: &[u8]) -> Result<Option<Self>, FlyteBytesError> {
        let message = messages::MatchingAttributes::decode(bytes).map_err(malformed)?;
        check_known(bytes)?;
        Ok(message.target.map(Self::try_from).transpose()?)
    }
}

/// Refuses a field of an unknown kind, which the decoder passes over: it would look as if nothing was set.
fn check_known(mut bytes: &[u8]) -> Result<(), FlyteBytesError> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)? >> 3;
        if !(1..=8).contains(&tag) {
            return Err(FlyteBytesError::UnknownField { tag });
        }
        // The decoder made sure that the known ones are messages, and whole.
        let length = usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, FlyteBytesError> {
    let number = prost::decode_length_delimiter(bytes).map_err(malformed)?;
    Ok(u64::try_from(number).unwrap_or(u64::MAX))
}

fn malformed(error: prost::DecodeError) -> FlyteBytesError {
    FlyteBytesError::Malformed { source: error.into() }
}
