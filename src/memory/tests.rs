//! What only a backend whose clock the test moves can show.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::MemoryBackend;
use super::pool::{ENDED, HANDED};
use crate::amount::{Lease, Quota, ResourceConstraintsSpec, Units};
use crate::backend::Backend as _;
use crate::claim::{Claim, Claimant, Joint};
use crate::clock::{Clock as _, ManualClock};
use crate::error::{Error, Result};
use crate::execution::{ExecutionId, Scope};
use crate::name::{AllocationToken, Holder, Member, PoolName};
use crate::outcome::{FencingNumber, JointOutcome, Limit, Outcome, Refusal, Released};
use crate::pool::{Cursor, Deletion, QuotaChange, Revocation};
use crate::ticket::{
    Inbox, Notice, Order, Priority, QueueChange, Renewal, Renewed, Ticket, TicketRequest, Turn,
    Weight,
};

const TTL: Duration = Duration::from_secs(10);

/// A pool by a clock that stands still, and an inbox for the tickets' notices.
struct Stage {
    clock: Arc<ManualClock>,
    backend: MemoryBackend,
    pool: PoolName,
    inbox: Inbox,
}

/// A claim of a token of execution `e` in `project`, domain `d` unless the project is written `project:domain`.
#[derive(Clone)]
struct Want {
    execution: ExecutionId,
    claim: Claim,
    caps: ResourceConstraintsSpec,
    priority: Priority,
}

fn want(project: &str, token: &str) -> Result<Want> {
    let (project, domain) = project.split_once(':').unwrap_or((project, "d"));
    Ok(Want {
        execution: ExecutionId::new(project, domain, "e")?,
        claim: Claim::from(AllocationToken::new(token)?),
        caps: ResourceConstraintsSpec::NONE,
        priority: Priority::default(),
    })
}

impl Want {
    fn units(mut self, units: i64) -> Result<Self> {
        self.claim.units = Units::new(units)?;
        Ok(self)
    }

    fn lease(mut self, length: Duration) -> Result<Self> {
        self.claim = self.claim.with_lease(Lease::new(length)?);
        Ok(self)
    }

    fn caps(self, project: Option<i64>, domain: Option<i64>) -> Result<Self> {
        Ok(Self { caps: ResourceConstraintsSpec::new(project, domain)?, ..self })
    }

    fn priority(self, priority: i64) -> Result<Self> {
        Ok(Self { priority: Priority::new(priority)?, ..self })
    }

    fn member(&self) -> Member {
        Member::new(&self.execution, &self.claim.token)
    }
}

impl Stage {
    async fn new(quota: i64) -> Result<Self> {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = Arc::new(ManualClock::new(start));
        let backend = MemoryBackend::with_clock(Arc::clone(&clock) as _);
        let pool = PoolName::new("plugin:pool")?;
        let inbox = backend.listen().await?;
        let stage = Self { clock, backend, pool, inbox };
        stage.register(quota).await?;
        Ok(stage)
    }

    async fn register(&self, quota: i64) -> Result<()> {
        let quota = Quota::new(quota, u32::MAX)?;
        self.backend.change_quota(&self.pool, QuotaChange::Register(quota)).await?;
        Ok(())
    }

    async fn order(&self, change: QueueChange) -> Result<()> {
        self.backend.change_queue(&self.pool, &change).await
    }

    fn pass(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    async fn allocate(&self, want: &Want) -> Result<Outcome> {
        let holder = Holder::new("h/1")?;
        let claimant =
            Claimant { execution: &want.execution, constraints: want.caps, holder: &holder };
        let claims = std::slice::from_ref(&want.claim);
        self.backend.allocate(&self.pool, claimant, claims).await?.remove(0)
    }

    /// Claims what must be granted.
    async fn take(&self, want: &Want) -> Result<FencingNumber> {
        let outcome = self.allocate(want).await?;
        let grant = outcome.granted().and_then(|grant| grant.fencing_number);
        Ok(grant.unwrap_or_else(|| panic!("{} was not granted: {outcome:?}", want.member())))
    }

    async fn wait(&self, want: &Want) -> Result<Turn> {
        let holder = Holder::new("h/1")?;
        let claimant =
            Claimant { execution: &want.execution, constraints: want.caps, holder: &holder };
        let request = TicketRequest::new(Lease::new(TTL)?)
            .with_priority(want.priority)
            .with_channel(self.inbox.channel.clone());
        self.backend.wait(&self.pool, claimant, &want.claim, &request).await
    }

    /// Claims what must wait.
    async fn queue(&self, want: &Want) -> Result<Ticket> {
        match self.wait(want).await? {
            Turn::Waiting(ticket) => Ok(ticket),
            Turn::Granted(grant) => panic!("{} need not wait: {grant:?}", want.member()),
        }
    }

    async fn renew(&self, want: &Want, length: Duration) -> Result<Renewed> {
        let lease = Lease::new(length)?;
        let renewal = Renewal { execution: &want.execution, token: &want.claim.token, lease };
        self.backend.renew(&self.pool, &[renewal]).await?.remove(0)
    }

    async fn release(&self, want: &Want) -> Result<Released> {
        let tokens = std::slice::from_ref(&want.claim.token);
        Ok(self.backend.release(&self.pool, &want.execution, tokens).await?.remove(0))
    }

    /// Any operation: it returns what is over and hands units on.
    async fn touch(&self) -> Result<()> {
        self.release(&want("nobody", "nothing")?).await.map(drop)
    }

    async fn in_use(&self) -> Result<u64> {
        assert!(self.backend.check(&self.pool).await?.is_clean());
        Ok(self.backend.usage(&self.pool).await?.in_use)
    }

    /// The tokens that hold units, the one granted first at the front.
    async fn holders(&self) -> Result<Vec<String>> {
        let page = self.backend.holders(&self.pool, Cursor::default(), 10_000).await?;
        Ok(page.holdings.iter().map(|holding| token_of(&holding.member)).collect())
    }

    /// The tokens that wait, by rank.
    async fn waiting(&self) -> Result<Vec<String>> {
        let page = self.backend.tickets(&self.pool, Cursor::default(), 10_000).await?;
        Ok(page.tickets.iter().map(|ticket| token_of(&ticket.member)).collect())
    }

    /// The tokens that were told that their turn came, and with a `!` those that are gone.
    fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.inbox.notices.try_recv().ok())
            .map(|notice| match notice {
                Notice::Granted { member, .. } => token_of(&member),
                Notice::Gone { member, .. } => format!("!{}", token_of(&member)),
                Notice::Interrupted => "interrupted".to_owned(),
            })
            .collect()
    }

    /// Gives one holder's unit back after the other; answers in which order the others got theirs.
    async fn served(&mut self, first: &Want, all: &[Want]) -> Result<Vec<String>> {
        let mut holder = first.clone();
        let mut order = Vec::new();
        loop {
            let _ = self.release(&holder).await?;
            let told = self.told();
            let Some(next) = told.first() else { return Ok(order) };
            assert_eq!(told.len(), 1, "one unit serves one");
            let of_next = all.iter().find(|want| want.claim.token.as_str() == next);
            holder = of_next.expect("a token of this test").clone();
            order.extend(told);
        }
    }
}

fn token_of(member: &Member) -> String {
    member.as_str().rsplit('-').next().unwrap_or_default().to_owned()
}

fn refusal(outcome: Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Refused(refusal) => Some(refusal),
        Outcome::Granted(_) => None,
    }
}

#[tokio::test]
async fn a_lease_ends_at_its_time_and_not_before() -> Result<()> {
    let stage = Stage::new(1).await?;
    let (leased, other) = (want("p", "a")?.lease(TTL)?, want("p", "b")?);
    stage.take(&leased).await?;
    stage.pass(9_999);
    assert_eq!(refusal(stage.allocate(&other).await?), Some(Refusal::new(Limit::Quota, 1, 1)));
    let left =
        stage.backend.holders(&stage.pool, Cursor::default(), 1).await?.holdings[0].lease_left;
    assert_eq!(left, Some(Duration::from_millis(1)));
    stage.pass(1);
    assert_eq!(stage.in_use().await?, 1, "looking ends nothing");
    stage.take(&other).await?;
    assert_eq!(stage.holders().await?, ["b"]);
    Ok(())
}

#[tokio::test]
async fn units_of_a_lease_come_back_once() -> Result<()> {
    let stage = Stage::new(3).await?;
    let leased = want("p", "a")?.units(2)?.lease(TTL)?;
    let first = stage.take(&leased).await?;
    stage.take(&want("p", "b")?).await?;
    stage.pass(10_000);
    stage.touch().await?;
    stage.touch().await?;
    assert_eq!(stage.in_use().await?, 1);
    assert_eq!(stage.release(&leased).await?, Released::NotHeld);
    assert_eq!(stage.renew(&leased, TTL).await?, Renewed::Lost);
    assert_eq!(stage.in_use().await?, 1);
    assert!(stage.take(&leased).await? > first);
    Ok(())
}

#[tokio::test]
async fn a_release_before_the_end_counts_and_the_end_does_not() -> Result<()> {
    let stage = Stage::new(2).await?;
    let leased = want("p", "a")?.lease(TTL)?;
    stage.take(&leased).await?;
    stage.pass(20_000);
    assert_eq!(stage.release(&leased).await?, Released::Units(1), "over, but nobody noticed");
    assert_eq!(stage.in_use().await?, 0);
    stage.take(&want("p", "a")?).await?;
    stage.touch().await?;
    assert_eq!(stage.in_use().await?, 1, "the new grant has no lease");
    Ok(())
}

#[tokio::test]
async fn many_leases_end_in_several_calls_the_oldest_first() -> Result<()> {
    let stage = Stage::new(100).await?;
    for i in 0..50_u64 {
        let length = Duration::from_millis(1000 + (i + 25) % 50);
        stage.take(&want("p", &format!("{i:02}"))?.lease(length)?).await?;
    }
    stage.pass(5_000);
    stage.touch().await?;
    assert_eq!(stage.in_use().await?, 50 - ENDED as u64);
    let left: Vec<_> =
        (0..50).filter(|i| !(25..45).contains(i)).map(|i| format!("{i:02}")).collect();
    assert_eq!(stage.holders().await?, left);
    stage.touch().await?;
    assert_eq!(stage.in_use().await?, 50 - 2 * ENDED as u64);
    stage.touch().await?;
    assert_eq!(stage.in_use().await?, 0);
    Ok(())
}

#[tokio::test]
async fn leases_of_one_time_end_by_their_members() -> Result<()> {
    let stage = Stage::new(100).await?;
    for i in (0..ENDED + 2).rev() {
        stage.take(&want("p", &format!("{i:02}"))?.lease(TTL)?).await?;
    }
    stage.pass(10_000);
    stage.touch().await?;
    assert_eq!(stage.holders().await?, ["21", "20"]);
    Ok(())
}

#[tokio::test]
async fn a_renewed_lease_is_kept() -> Result<()> {
    let stage = Stage::new(1).await?;
    let (leased, forever) = (want("p", "a")?.lease(TTL)?, want("p", "a")?);
    let number = stage.take(&leased).await?;
    for _ in 0..5 {
        stage.pass(9_000);
        assert_eq!(stage.renew(&leased, TTL).await?, Renewed::Held(Some(number)));
    }
    stage.pass(9_000);
    assert_eq!(stage.take(&leased).await?, number, "claiming again renews, too");
    stage.pass(10_000);
    stage.touch().await?;
    assert_eq!(stage.in_use().await?, 0);

    let number = stage.take(&forever).await?;
    assert_eq!(stage.renew(&forever, TTL).await?, Renewed::Held(Some(number)));
    stage.pass(100_000);
    stage.touch().await?;
    assert_eq!(stage.in_use().await?, 1, "what has no lease gets none");
    Ok(())
}

#[tokio::test]
async fn a_renewal_is_for_the_execution_that_claimed() -> Result<()> {
    let stage = Stage::new(1).await?;
    // Both are the member `ex:p:d:a-b-c`.
    let mut one = want("p", "b-c")?.lease(TTL)?;
    one.execution = ExecutionId::new("p", "d", "a")?;
    let mut other = want("p", "c")?.lease(TTL)?;
    other.execution = ExecutionId::new("p", "d", "a-b")?;
    stage.take(&one).await?;
    let error = stage.renew(&other, TTL).await.err();
    assert!(matches!(error, Some(Error::Conflict { held_units: 1, .. })), "{error:?}");
    assert!(matches!(stage.wait(&other).await.err(), Some(Error::Conflict { .. })));
    assert_eq!(stage.release(&other).await?, Released::NotHeld);
    Ok(())
}

#[tokio::test]
async fn tickets_are_served_as_they_came() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    let holder = want("z", "holder")?;
    stage.take(&holder).await?;
    let wants = [want("q", "a")?, want("p", "b")?, want("q:other", "c")?, want("p", "d")?];
    for (i, want) in wants.iter().enumerate() {
        let ticket = stage.queue(want).await?;
        assert_eq!(ticket.position, i as u64 + 1);
        assert_eq!(ticket.blocked_by, Refusal::new(Limit::Quota, 1, 1));
    }
    assert_eq!(stage.queue(&wants[2]).await?.position, 3, "asking again keeps the place");
    assert_eq!(stage.served(&holder, &wants).await?, ["a", "b", "c", "d"]);
    Ok(())
}

#[tokio::test]
async fn the_urgent_go_first_until_the_others_are_old() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    stage.order(QueueChange::new().order(Order::Priority)).await?;
    let holder = want("z", "holder")?;
    stage.take(&holder).await?;
    let mut wants = vec![want("p", "low")?.priority(0)?, want("p", "mid")?.priority(5)?];
    wants.push(want("q", "high")?.priority(9)?);
    for want in &wants {
        let _ = stage.queue(want).await?;
    }
    assert_eq!(stage.waiting().await?, ["high", "mid", "low"]);
    // One level is worth 30 s: after 31 s the low one stands before a newcomer of priority 1.
    for _ in 0..4 {
        stage.pass(7_750);
        for want in &wants {
            assert_eq!(stage.renew(want, TTL).await?, Renewed::Waiting);
        }
    }
    wants.extend([want("q", "one")?.priority(1)?, want("q", "two")?.priority(2)?]);
    for want in &wants[3..] {
        let _ = stage.queue(want).await?;
    }
    let served = stage.served(&holder, &wants).await?;
    assert_eq!(served, ["high", "mid", "two", "low", "one"]);
    Ok(())
}

#[tokio::test]
async fn projects_share_in_proportion_to_their_weights() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    let weights = QueueChange::new().order(Order::Fair).weight("heavy", Weight::new(3)?);
    stage.order(weights).await?;
    let holder = want("z", "holder")?;
    stage.take(&holder).await?;
    let mut wants = Vec::new();
    // Many executions of one project gain nothing: all of `light` come first.
    for i in 0..12 {
        wants.push(want(&format!("light:{}", i % 4), &format!("l{i}"))?);
    }
    for i in 0..12 {
        wants.push(want("heavy", &format!("h{i}"))?);
    }
    for want in &wants {
        let _ = stage.queue(want).await?;
    }
    let served = stage.served(&holder, &wants).await?;
    let heavy = |n: usize| served[..n].iter().filter(|token| token.starts_with('h')).count();
    for n in [4, 8, 12] {
        assert!(heavy(n).abs_diff(n * 3 / 4) <= 1, "{n}: {served:?}");
    }
    assert_eq!(served.len(), 24);
    let lights: Vec<_> = served.iter().filter(|token| token.starts_with('l')).collect();
    assert_eq!(
        lights,
        (0..12).map(|i| format!("l{i}")).collect::<Vec<_>>().iter().collect::<Vec<_>>()
    );
    Ok(())
}

#[tokio::test]
async fn larger_claims_use_up_more_of_a_share() -> Result<()> {
    let mut stage = Stage::new(4).await?;
    stage.order(QueueChange::new().order(Order::Fair)).await?;
    let holder = want("z", "holder")?.units(4)?;
    stage.take(&holder).await?;
    let large: Vec<_> =
        (0..3).map(|i| want("a", &format!("L{i}"))?.units(4)).collect::<Result<_>>()?;
    let small: Vec<_> = (0..8).map(|i| want("b", &format!("s{i}"))).collect::<Result<_>>()?;
    for want in large.iter().chain(&small) {
        let _ = stage.queue(want).await?;
    }
    let _ = stage.release(&holder).await?;
    assert_eq!(stage.told(), ["L0"]);
    let _ = stage.release(&large[0]).await?;
    assert_eq!(stage.told(), ["s0", "s1", "s2", "s3"], "as many units as the other project had");
    for want in &small[..4] {
        let _ = stage.release(want).await?;
    }
    assert_eq!(stage.told(), ["L1"]);
    Ok(())
}

#[tokio::test]
async fn a_project_at_its_cap_lets_the_others_pass() -> Result<()> {
    let mut stage = Stage::new(3).await?;
    let capped = |token| want("capped", token)?.caps(Some(1), None);
    let (first, second) = (capped("c1")?, capped("c2")?);
    stage.take(&first).await?;
    let ticket = stage.queue(&second).await?;
    let scope = Scope::Project { project: "capped".to_owned() };
    assert_eq!(ticket.blocked_by, Refusal::new(Limit::Cap(scope), 1, 1));
    stage.take(&want("other", "o1")?).await?;
    let outcome = stage.allocate(&want("capped", "c3")?).await?;
    let queue = Refusal::new(Limit::Queue, 2, 3);
    assert_eq!(refusal(outcome), Some(queue), "but none of the project passes");
    let _ = stage.release(&first).await?;
    assert_eq!(stage.told(), ["c2"]);
    assert_eq!(stage.in_use().await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_domain_at_its_cap_lets_its_project_pass() -> Result<()> {
    let mut stage = Stage::new(3).await?;
    let capped = |token| want("p:dev", token)?.caps(Some(3), Some(1));
    let (first, second) = (capped("c1")?, capped("c2")?);
    stage.take(&first).await?;
    let ticket = stage.queue(&second).await?;
    let scope = Scope::Domain { project: "p".to_owned(), domain: "dev".to_owned() };
    assert_eq!(ticket.blocked_by, Refusal::new(Limit::Cap(scope), 1, 1));
    stage.take(&want("p:prod", "o1")?.caps(Some(3), Some(1))?).await?;
    assert_eq!(stage.release(&first).await?, Released::Units(1));
    assert_eq!(stage.told(), ["c2"]);
    Ok(())
}

#[tokio::test]
async fn a_raised_cap_lets_a_ticket_run() -> Result<()> {
    let stage = Stage::new(3).await?;
    stage.take(&want("p", "a")?.caps(Some(1), None)?).await?;
    let _ = stage.queue(&want("p", "b")?.caps(Some(1), None)?).await?;
    let turn = stage.wait(&want("p", "b")?.caps(Some(2), None)?).await?;
    assert!(turn.granted().is_some_and(|grant| !grant.held_before));
    assert_eq!(stage.in_use().await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_small_claim_does_not_overtake_a_ticket_that_waits_for_the_quota() -> Result<()> {
    let mut stage = Stage::new(3).await?;
    let (a, b) = (want("p", "a")?, want("p", "b")?);
    stage.take(&a).await?;
    stage.take(&b).await?;
    let _ = stage.queue(&want("p", "large")?.units(3)?).await?;
    let small = want("q", "small")?;
    assert_eq!(refusal(stage.allocate(&small).await?), Some(Refusal::new(Limit::Queue, 2, 3)));
    assert_eq!(stage.queue(&small).await?.position, 2);
    let _ = stage.release(&a).await?;
    assert!(stage.told().is_empty());
    let own = stage.allocate(&small).await?;
    assert_eq!(refusal(own), Some(Refusal::new(Limit::Queue, 1, 3)), "its own ticket");
    let _ = stage.release(&b).await?;
    assert_eq!(stage.told(), ["large"]);
    assert_eq!(refusal(stage.allocate(&small).await?), Some(Refusal::new(Limit::Quota, 3, 3)));
    Ok(())
}

#[tokio::test]
async fn a_ticket_that_is_not_renewed_is_skipped() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    let (holder, dead, alive) = (want("p", "h")?, want("p", "dead")?, want("p", "alive")?);
    stage.take(&holder).await?;
    let _ = stage.queue(&dead).await?;
    let _ = stage.queue(&alive).await?;
    stage.pass(6_000);
    assert_eq!(stage.renew(&alive, TTL).await?, Renewed::Waiting);
    assert_eq!(stage.waiting().await?, ["dead", "alive"]);
    stage.pass(6_000);
    let _ = stage.release(&holder).await?;
    assert_eq!(stage.told(), ["alive"]);
    assert!(stage.waiting().await?.is_empty());
    assert_eq!(stage.renew(&dead, TTL).await?, Renewed::Lost);
    Ok(())
}

#[tokio::test]
async fn a_grant_that_nobody_takes_over_goes_on() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    let (holder, dead, alive) = (want("p", "h")?, want("p", "dead")?, want("p", "alive")?);
    stage.take(&holder).await?;
    let _ = stage.queue(&dead).await?;
    stage.pass(4_000);
    let _ = stage.queue(&alive).await?;
    let _ = stage.release(&holder).await?;
    assert_eq!(stage.told(), ["dead"]);
    stage.pass(5_999);
    assert_eq!(stage.renew(&alive, TTL).await?, Renewed::Waiting);
    stage.pass(1);
    assert!(matches!(stage.renew(&alive, TTL).await?, Renewed::Held(Some(_))));
    assert_eq!(stage.told(), ["alive"]);
    let turn = stage.wait(&alive).await?;
    assert!(turn.granted().is_some_and(|grant| grant.held_before));
    stage.pass(100_000);
    stage.touch().await?;
    assert_eq!(stage.holders().await?, ["alive"], "taken over without a lease: until released");
    Ok(())
}

#[tokio::test]
async fn a_ticket_says_when_something_ends() -> Result<()> {
    let stage = Stage::new(1).await?;
    stage.take(&want("p", "h")?.lease(Duration::from_secs(4))?).await?;
    stage.pass(1_000);
    let retry_after = stage.queue(&want("p", "a")?).await?.retry_after;
    assert_eq!(retry_after, Some(Duration::from_secs(3)));
    stage.pass(3_000);
    assert!(stage.wait(&want("p", "a")?).await?.granted().is_some());
    Ok(())
}

#[tokio::test]
async fn a_withdrawn_ticket_makes_way() -> Result<()> {
    let mut stage = Stage::new(2).await?;
    let holder = want("p", "h")?;
    stage.take(&holder).await?;
    let (large, small) = (want("p", "large")?.units(2)?, want("q", "small")?);
    let _ = stage.queue(&large).await?;
    let _ = stage.queue(&small).await?;
    assert_eq!(stage.release(&large).await?, Released::Withdrawn);
    assert_eq!(stage.told(), ["small"]);
    assert_eq!(stage.release(&large).await?, Released::NotHeld);
    Ok(())
}

#[tokio::test]
async fn a_new_order_sorts_the_projects_and_later_tickets() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    let holder = want("z", "h")?;
    stage.take(&holder).await?;
    let mut wants = vec![want("a", "a1")?, want("a", "a2")?, want("b", "b1")?];
    for want in &wants {
        let _ = stage.queue(want).await?;
    }
    stage.order(QueueChange::new().order(Order::Fair)).await?;
    wants.push(want("c", "c1")?);
    let _ = stage.queue(&wants[3]).await?;
    assert_eq!(stage.served(&holder, &wants).await?, ["a1", "b1", "c1", "a2"]);
    assert_eq!(stage.backend.usage(&stage.pool).await?.order, Order::Fair);
    Ok(())
}

#[tokio::test]
async fn a_larger_quota_is_handed_on() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    stage.take(&want("p", "h")?).await?;
    for token in ["a", "b", "c"] {
        let _ = stage.queue(&want("p", token)?).await?;
    }
    stage.register(3).await?;
    assert_eq!(stage.told(), ["a", "b"]);
    assert_eq!(stage.in_use().await?, 3);
    assert_eq!(stage.queue(&want("p", "c")?).await?.position, 1);
    Ok(())
}

#[tokio::test]
async fn many_are_handed_on_in_several_calls() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    stage.take(&want("p", "h")?).await?;
    for i in 0..HANDED + 50 {
        let _ = stage.queue(&want("p", &format!("{i}"))?).await?;
    }
    stage.register(1_000).await?;
    assert_eq!(stage.told().len(), HANDED);
    let outcome = stage.allocate(&want("q", "new")?).await?;
    assert!(outcome.granted().is_some(), "after the rest was served");
    assert_eq!(stage.told().len(), 50);
    Ok(())
}

#[tokio::test]
async fn a_ticket_larger_than_the_quota_is_gone() -> Result<()> {
    let mut stage = Stage::new(3).await?;
    let holder = want("p", "h")?;
    stage.take(&holder).await?;
    let large = want("p", "large")?.units(3)?;
    let _ = stage.queue(&large).await?;
    let _ = stage.queue(&want("q", "small")?).await?;
    stage.register(2).await?;
    assert_eq!(stage.told(), ["!large", "small"]);
    let error = stage.wait(&large).await.err();
    let limit = Limit::Quota;
    assert!(
        matches!(&error, Some(Error::NeverGranted { units: 3, limit: l, size: 2, .. }) if *l == limit),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_ticket_whose_cap_rises_after_the_quota_fell_is_gone() -> Result<()> {
    let mut stage = Stage::new(3).await?;
    stage.take(&want("p", "h")?).await?;
    let large = want("p", "large")?.units(3)?;
    let _ = stage.queue(&large.clone().caps(Some(3), None)?).await?;
    stage.register(2).await?;
    assert!(stage.told().is_empty(), "it stands at its cap");
    let error = stage.wait(&large).await.err();
    assert!(matches!(error, Some(Error::NeverGranted { units: 3, size: 2, .. })), "{error:?}");
    stage.release(&want("p", "h")?).await?;
    assert_eq!(stage.told(), ["!large"]);
    Ok(())
}

#[tokio::test]
async fn what_can_never_run_may_not_wait() -> Result<()> {
    let stage = Stage::new(2).await?;
    let cases = [
        (want("p", "t")?.units(3)?, Limit::Quota, 2),
        (
            want("p", "t")?.units(2)?.caps(Some(1), Some(0))?,
            Limit::Cap(Scope::Project { project: "p".to_owned() }),
            1,
        ),
        (
            want("p", "t")?.caps(Some(1), Some(0))?,
            Limit::Cap(Scope::Domain { project: "p".to_owned(), domain: "d".to_owned() }),
            0,
        ),
    ];
    for (want, expected, expected_size) in cases {
        match stage.wait(&want).await {
            Err(Error::NeverGranted { limit, size, .. }) => {
                assert_eq!((limit, size), (expected, expected_size));
            }
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_revocation_is_written_down_and_hands_on() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    let (holder, first, second) = (want("p", "h")?, want("p", "a")?, want("p", "b")?);
    stage.take(&holder).await?;
    let _ = stage.queue(&first).await?;
    let _ = stage.queue(&second).await?;
    let revocation = Revocation::new("op", "stuck")?;
    let backend = stage.backend.clone();
    let revoke = |want: &Want| {
        let member = want.member();
        let (backend, pool, revocation) = (&backend, stage.pool.clone(), &revocation);
        async move { backend.revoke(&pool, &member, revocation).await }
    };
    assert_eq!(revoke(&first).await?, Released::Withdrawn);
    stage.pass(1);
    assert_eq!(revoke(&holder).await?, Released::Units(1));
    assert_eq!(revoke(&holder).await?, Released::NotHeld);
    assert_eq!(stage.told(), ["b"]);
    let records = stage.backend.revocations(&stage.pool, 10).await?;
    let written: Vec<_> = records.iter().map(|record| token_of(&record.member)).collect();
    assert_eq!(written, ["h", "a"]);
    assert_eq!(records[0].at, stage.clock.now());
    assert_eq!(stage.backend.revocations(&stage.pool, 1).await?, records[..1]);
    Ok(())
}

#[tokio::test]
async fn several_pools_grant_all_or_nothing() -> Result<()> {
    let stage = Stage::new(1).await?;
    let other = PoolName::new("plugin:other")?;
    let quota = QuotaChange::Register(Quota::new(1, 1)?);
    stage.backend.change_quota(&other, quota).await?;
    let want = want("p", "both")?.lease(TTL)?;
    let holder = Holder::new("h/1")?;
    let claimant = Claimant {
        execution: &want.execution,
        constraints: ResourceConstraintsSpec::NONE,
        holder: &holder,
    };
    let joint = |pool: &PoolName| Joint {
        pool: pool.clone(),
        claim: want.claim.clone(),
        constraints: ResourceConstraintsSpec::NONE,
    };
    let both = [joint(&stage.pool), joint(&other)];
    let twice = [joint(&stage.pool), joint(&other), joint(&stage.pool)];
    let error = stage.backend.allocate_all(claimant, &twice).await.err();
    assert!(matches!(error, Some(Error::InvalidArgument { field: "pools", .. })), "{error:?}");

    let full = self::want("p", "full")?;
    stage.take(&full).await?;
    let outcome =
        stage.backend.allocate_all(claimant, &[joint(&other), joint(&stage.pool)]).await?;
    let refusal = Refusal::new(Limit::Quota, 1, 1);
    assert_eq!(outcome, JointOutcome::Refused { pool: stage.pool.clone(), refusal });
    assert_eq!(stage.backend.usage(&other).await?.in_use, 0);

    let _ = stage.release(&full).await?;
    let outcome = stage.backend.allocate_all(claimant, &both).await?;
    let JointOutcome::Granted(grants) = outcome else { panic!("{outcome:?}") };
    assert!(grants.iter().all(|grant| !grant.held_before));
    let outcome = stage.backend.allocate_all(claimant, &both).await?;
    let JointOutcome::Granted(grants) = outcome else { panic!("{outcome:?}") };
    assert!(grants.iter().all(|grant| grant.held_before));
    stage.pass(10_000);
    stage.touch().await?;
    assert_eq!(stage.in_use().await?, 0);

    let unknown = PoolName::new("plugin:unknown")?;
    let error = stage.backend.allocate_all(claimant, &[joint(&other), joint(&unknown)]).await.err();
    assert!(matches!(error, Some(Error::UnknownNamespace { .. })), "{error:?}");
    assert_eq!(stage.backend.usage(&other).await?.in_use, 0, "the lease was over");
    Ok(())
}

#[tokio::test]
async fn tickets_are_listed_in_pages() -> Result<()> {
    let stage = Stage::new(1).await?;
    stage.order(QueueChange::new().order(Order::Priority)).await?;
    stage.take(&want("p", "h")?).await?;
    for i in 0..5 {
        let _ = stage.queue(&want("p", &format!("{i}"))?.caps(Some(1), None)?).await?;
        stage.pass(1_000);
    }
    let (mut listed, mut from, mut pages) = (Vec::new(), Cursor::default(), 0);
    loop {
        let page = stage.backend.tickets(&stage.pool, from, 2).await?;
        pages += 1;
        listed.extend(page.tickets);
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(pages, 3);
    let tokens: Vec<_> = listed.iter().map(|ticket| token_of(&ticket.member)).collect();
    assert_eq!(tokens, ["0", "1", "2", "3", "4"]);
    assert_eq!(listed[1].time_left, Duration::from_secs(6));
    assert_eq!((listed[1].project_cap, listed[1].domain_cap), (Some(1), None));
    let error = stage.backend.delete_pool(&stage.pool, Deletion::OnlyUnused).await.err();
    assert!(matches!(error, Some(Error::PoolInUse { .. })), "{error:?}");
    assert_eq!(stage.backend.check(&stage.pool).await?.tickets, 5);
    Ok(())
}

#[tokio::test]
async fn tickets_of_one_rank_stay_on_one_page() -> Result<()> {
    let stage = Stage::new(1).await?;
    stage.order(QueueChange::new().order(Order::Priority)).await?;
    stage.take(&want("p", "h")?).await?;
    let _ = stage.queue(&want("p", "b")?).await?;
    for _ in 0..5 {
        stage.pass(6_000);
        stage.renew(&want("p", "b")?, TTL).await?;
    }
    let second = want("p", "a")?.priority(1)?;
    assert_eq!(stage.queue(&second).await?.position, 1, "of the same rank, by member");
    let page = stage.backend.tickets(&stage.pool, Cursor::default(), 1).await?;
    assert_eq!((page.tickets.len(), page.next), (2, None));
    Ok(())
}

#[tokio::test]
async fn a_pool_with_tickets_alone_is_in_use() -> Result<()> {
    let stage = Stage::new(2).await?;
    stage.take(&want("p", "h")?).await?;
    let _ = stage.queue(&want("p", "large")?.units(2)?).await?;
    stage.pass(20_000);
    let _ = stage.queue(&want("p", "other")?.units(2)?).await?;
    let detached = stage.backend.detached().await?;
    assert_eq!(detached.tickets(&stage.pool, Cursor::default(), 10).await?.tickets.len(), 1);
    let units = detached.delete_pool(&stage.pool, Deletion::EvenInUse).await?;
    assert_eq!(units, 1);
    assert!(stage.backend.usage(&stage.pool).await.is_err());
    Ok(())
}

#[tokio::test]
async fn an_inbox_that_was_dropped_is_forgotten() -> Result<()> {
    let mut stage = Stage::new(1).await?;
    let holder = want("p", "h")?;
    stage.take(&holder).await?;
    let _ = stage.queue(&want("p", "a")?).await?;
    let other = stage.backend.listen().await?;
    assert_ne!(other.channel, stage.inbox.channel);
    stage.inbox = other;
    assert_eq!(stage.release(&holder).await?, Released::Units(1));
    assert!(stage.told().is_empty());
    assert_eq!(stage.holders().await?, ["a"]);
    Ok(())
}
