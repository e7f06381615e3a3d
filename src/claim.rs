//! What is asked for.

use crate::amount::{Lease, ResourceConstraintsSpec, Units};
use crate::error::{Error, Result};
use crate::execution::ExecutionId;
use crate::name::{AllocationToken, Holder, PoolName};
use crate::outcome::FencingNumber;

/// One token and the units it is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Claim {
    /// The caller's name for the claim.
    pub token: AllocationToken,
    /// Units to take.
    pub units: Units,
    /// How long they are held unless renewed; none is until they are released.
    pub lease: Option<Lease>,
    /// Number of the grant that the token had, if the backend may have forgotten that.
    pub returning: Option<FencingNumber>,
}

impl Claim {
    /// A claim of several units, held until released.
    pub fn new(token: AllocationToken, units: Units) -> Self {
        Self { token, units, lease: None, returning: None }
    }

    /// The same claim, whose units return by themselves when the lease is over.
    #[must_use]
    pub fn with_lease(self, lease: Lease) -> Self {
        Self { lease: Some(lease), ..self }
    }

    /// The same claim of a token that was granted before, under this number.
    ///
    /// A pool that learns who holds its units, after data were lost, admits it if it has indeed forgotten that grant, and past
    /// all tickets; what is granted has a larger number. Else, and among claims of several pools, it is a claim like any other.
    /// Leases that this library renews come back by themselves.
    #[must_use]
    pub fn returning(self, number: FencingNumber) -> Self {
        Self { returning: Some(number), ..self }
    }
}

impl From<AllocationToken> for Claim {
    /// A claim of one unit.
    fn from(token: AllocationToken) -> Self {
        Self::new(token, Units::ONE)
    }
}

/// Whom claims belong to and what limits them beside the quota: what a backend needs to know of the
/// claimant.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The execution the tokens belong to.
    pub execution: &'a ExecutionId,
    /// The caps on its scopes.
    pub constraints: ResourceConstraintsSpec,
    /// The process that asks.
    pub holder: &'a Holder,
}

/// One of several claims that are granted all or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "made by the caller")]
pub struct Joint {
    /// The pool.
    pub pool: PoolName,
    /// What is asked of it.
    pub claim: Claim,
    /// The caps on the execution's scopes in this pool.
    pub constraints: ResourceConstraintsSpec,
}

impl Joint {
    /// One pool decides about one claim of several, so that what it answers is about that.
    pub(crate) fn check_distinct(claims: &[Self]) -> Result<()> {
        let mut pools: Vec<_> = claims.iter().map(|joint| &joint.pool).collect();
        pools.sort_unstable();
        match pools.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::invalid("pools", pair[0], "must not name a pool twice")),
            None => Ok(()),
        }
    }
}
