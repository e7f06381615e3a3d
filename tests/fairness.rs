//! How long projects wait for each other, in units of service: no clock is involved, the n-th grant is at time n.
//!
//! Whoever was served first is done first, so that with a quota of ten each grant lasts for ten others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokenpool::{Inbox, Notice, Order, QueueChange, TicketRequest};
use tokio::task::JoinSet;

use crate::support::server::Server;
use crate::support::{FREE, Fixture, Pool, claim, memory, notice, redis_on, ticket, weight};

const QUOTA: u64 = 10;
/// Tickets that are filed at the same time.
const AT_ONCE: usize = 64;

/// Who waits: `project`, `execution`, number and units of its claims.
struct Load {
    project: String,
    executions: usize,
    claims: usize,
    units: fn(usize) -> i64,
}

fn load(project: &str, claims: usize) -> Load {
    Load { project: project.to_owned(), executions: 1, claims, units: |_| 1 }
}

/// Projects B to Z.
fn others(claims: usize) -> Vec<Load> {
    ('b'..='z').map(|name| load(&name.to_string(), claims)).collect()
}

/// A pool that serves its tickets one after the other.
struct Service {
    pool: Arc<Pool>,
    inbox: Inbox,
    request: TicketRequest,
    holding: VecDeque<(String, String)>,
    tickets: u64,
    /// Units of each claim, by project.
    sizes: BTreeMap<String, fn(usize) -> i64>,
}

/// A grant: to which project, of how many units.
type Served = (String, u64);

impl Service {
    /// A pool that is used up, and this load before it.
    async fn open(f: &Fixture, change: &QueueChange, loads: &[Load]) -> Self {
        let f = f.another_pool();
        let pool = Arc::new(f.pool(QUOTA.try_into().unwrap()).await);
        pool.backend.change_queue(&pool.name, change).await.unwrap();
        let mut holding = VecDeque::new();
        for number in 0..QUOTA {
            let name = format!("first{number}");
            pool.claim("first/d/e", &name).await.granted().unwrap();
            holding.push_back(("first/d/e".to_owned(), name));
        }
        let inbox = f.backend.listen().await.unwrap();
        let request = ticket().with_channel(inbox.channel.clone());
        let mut service =
            Self { pool, inbox, request, holding, tickets: 0, sizes: BTreeMap::new() };
        for load in loads {
            service.queue(load).await;
        }
        service
    }

    /// Files the claims of a project; those of later calls come later.
    async fn queue(&mut self, load: &Load) {
        self.sizes.insert(load.project.clone(), load.units);
        let mut under_way = JoinSet::new();
        for number in 0..load.claims {
            let (pool, request) = (Arc::clone(&self.pool), self.request.clone());
            let path = format!("{}/d/e{}", load.project, number % load.executions);
            let claim = claim(&number.to_string(), (load.units)(number));
            under_way.spawn(async move {
                let turn = pool.try_wait(&path, &claim, FREE, &request).await.unwrap();
                assert!(turn.granted().is_none(), "the pool is used up");
            });
            if under_way.len() == AT_ONCE {
                under_way.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(done) = under_way.join_next().await {
            done.unwrap();
        }
        self.tickets += u64::try_from(load.claims).unwrap();
    }

    /// Ends the oldest grant and tells who is served then, which may be nobody yet or several.
    async fn next(&mut self) -> Vec<Served> {
        let (path, name) = self.holding.pop_front().unwrap();
        self.pool.release(&path, &name).await;
        let left = self.pool.usage().await.tickets;
        let mut served = Vec::new();
        for _ in left..self.tickets {
            let told = notice(&mut self.inbox).await;
            let Notice::Granted { member, .. } = told else { panic!("{told:?}") };
            let (scope, name) = member.as_str().rsplit_once('-').unwrap();
            let path = scope.strip_prefix("ex:").unwrap().replace(':', "/");
            let project = path.split('/').next().unwrap().to_owned();
            let units = self.sizes[&project](name.parse().unwrap());
            served.push((project, units.try_into().unwrap()));
            self.holding.push_back((path, name.to_owned()));
        }
        self.tickets = left;
        served
    }

    /// The first grants, as many or as there are.
    async fn grants(&mut self, count: usize) -> Vec<Served> {
        let mut grants = Vec::new();
        while grants.len() < count && self.tickets > 0 {
            grants.extend(self.next().await);
        }
        grants
    }
}

/// When each claim of each project is served.
fn times(grants: &[Served]) -> BTreeMap<&str, Vec<usize>> {
    let mut times: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (time, (project, _)) in grants.iter().enumerate() {
        times.entry(project).or_default().push(time + 1);
    }
    times
}

fn units_of(grants: &[Served], project: &str) -> u64 {
    grants.iter().filter(|(name, _)| name == project).map(|(_, units)| units).sum()
}

fn order(order: Order) -> QueueChange {
    QueueChange::new().order(order)
}

macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&super::memory().await).await;
            })*
        }
        mod on_redis {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&super::redis_on(super::Server::start()).await).await;
            })*
        }
    };
}

on_both! {
    a_flood_makes_nobody_else_wait_longer,
    many_executions_gain_nothing,
    three_times_the_weight_is_three_times_the_service,
    service_is_even_while_all_wait,
}

/// What B to Z wait with A's ten thousand claims before them, against what they wait if A has ten as they do.
async fn a_flood_makes_nobody_else_wait_longer(f: &Fixture) {
    const CLAIMS: usize = 10;
    const FLOOD: usize = 10_000;
    /// As many grants as all of B to Z may have to wait for.
    const ALL: usize = 3 * 26 * CLAIMS;
    let with = |claims| {
        let mut loads = others(CLAIMS);
        loads.insert(0, load("a", claims));
        loads
    };
    let fair = order(Order::Fair);
    let equal = Service::open(f, &fair, &with(CLAIMS)).await.grants(ALL).await;
    let flooded = Service::open(f, &fair, &with(FLOOD)).await.grants(ALL).await;
    let (equal, flooded) = (times(&equal), times(&flooded));
    let longest = equal.values().flatten().max().unwrap();
    assert_eq!(*longest, 26 * CLAIMS);
    for Load { project, .. } in others(CLAIMS) {
        let (before, now) = (&equal[project.as_str()], &flooded[project.as_str()]);
        assert_eq!((before.len(), now.len()), (CLAIMS, CLAIMS), "{project}");
        for (before, now) in before.iter().zip(now) {
            assert!(*now <= 3 * before, "{project} waits for {now} grants instead of {before}");
        }
    }
    // As they come: nobody but A is served in all that time.
    let fifo = Service::open(f, &order(Order::Fifo), &with(FLOOD)).await.grants(ALL).await;
    assert_eq!(times(&fifo).keys().collect::<Vec<_>>(), [&"a"]);
}

async fn many_executions_gain_nothing(f: &Fixture) {
    const GRANTS: usize = 600;
    let share = async |executions| {
        let mut loads = vec![Load { executions, ..load("a", 1_000) }];
        loads.extend(["b", "c", "d", "e"].map(|name| load(name, 300)));
        let grants = Service::open(f, &order(Order::Fair), &loads).await.grants(GRANTS).await;
        units_of(&grants, "a")
    };
    let (one, hundred) = (share(1).await, share(100).await);
    assert!(one.abs_diff(hundred) * 100 <= one, "{one} and {hundred}");
    assert_eq!(one, u64::try_from(GRANTS).unwrap() / 5);
}

async fn three_times_the_weight_is_three_times_the_service(f: &Fixture) {
    const GRANTS: usize = 420;
    let loads: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| load(name, 300)).into();
    for (change, of_b) in [(order(Order::Fair), 1), (order(Order::Fair).weight("b", weight(3)), 3)]
    {
        let grants = Service::open(f, &change, &loads).await.grants(GRANTS).await;
        let (a, b) = (units_of(&grants, "a"), units_of(&grants, "b"));
        assert!(b.abs_diff(of_b * a) <= of_b, "a {a}, b {b}");
    }
}

/// Jain's index of the units that projects were given: 1 if all are the same, 1/n if one has everything.
fn evenness(units: &[u64]) -> f64 {
    let sum: u64 = units.iter().sum();
    let squares: u64 = units.iter().map(|units| units * units).sum();
    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    let (above, below) = ((sum * sum) as f64, (squares * units.len() as u64) as f64);
    above / below
}

/// Claims of different sizes; A comes first and has more of them.
async fn service_is_even_while_all_wait(f: &Fixture) {
    const PROJECTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let sizes: [fn(usize) -> i64; 3] = [
        |_| 1,
        |number| 1 + i64::try_from(number % 5).unwrap(),
        |number| 1 + i64::try_from(number * 7 % 4).unwrap(),
    ];
    let loads: Vec<_> = PROJECTS
        .iter()
        .enumerate()
        .map(|(i, name)| Load {
            units: sizes[i % 3],
            ..load(name, if i == 0 { 1_000 } else { 200 })
        })
        .collect();
    let evenness_with = async |change: &QueueChange| {
        let grants = Service::open(f, change, &loads).await.grants(400).await;
        PROJECTS.map(|name| units_of(&grants, name))
    };
    let fair = evenness_with(&order(Order::Fair)).await;
    assert!(evenness(&fair) > 0.99, "{fair:?}");
    let fifo = evenness_with(&order(Order::Fifo)).await;
    assert!(evenness(&fifo) < 0.5, "{fifo:?}");
}
