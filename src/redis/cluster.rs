//! A cluster: which server has which slot, and calls that go there.
//!
//! One task keeps the table of slots; a call that is told to go elsewhere goes there and lets the task know. Each server has
//! connections of its own, so that one that fails keeps up no call to another.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::aio::ConnectionLike as _;
use redis::{Cmd, ErrorKind, PushInfo, PushKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::address::{Address, Dial};
use super::connect::{Lane, Request, timed_out};
use super::keys::sharded_channel;
use super::link::{Hearing, Link, subscribe};
use super::listeners::Listeners;
use super::node::{Limits, Node};
use super::permission;
use super::slot::Slot;

/// How often the table is asked for while all is well, and at most while it is not.
const CALM: Duration = Duration::from_secs(5);
const ALARMED: Duration = Duration::from_millis(50);

/// How long a server has to tell the table.
const ANSWERED: Duration = Duration::from_millis(500);

/// How often one attempt goes at once where it is told to. Who is sent on more often is sent to and fro, because not all servers
/// know yet where a slot has moved to.
const AT_ONCE: usize = 4;

/// How long to wait while a slot's keys are on two servers, or servers do not agree whose it is.
const MOVING: Duration = Duration::from_millis(5);

/// A cluster as its clients see it.
#[derive(Debug)]
pub(super) struct Cluster {
    table: Arc<Table>,
    _keeper: AbortOnDropHandle<()>,
}

struct Table {
    dial: Dial,
    limits: Limits,
    seeds: Vec<Address>,
    slots: watch::Sender<Arc<Slots>>,
    servers: Mutex<HashMap<Address, Arc<Node>>>,
    doubt: Notify,
    shards: Mutex<Shards>,
    listeners: Listeners,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

/// Who has which slots, in order.
#[derive(Debug, Default)]
struct Slots(Vec<Range>);

#[derive(Debug)]
struct Range {
    first: Slot,
    last: Slot,
    node: Arc<Node>,
}

impl Slots {
    fn owner(&self, slot: Slot) -> Option<&Arc<Node>> {
        let after = self.0.partition_point(|range| range.first <= slot);
        let range = self.0.get(after.checked_sub(1)?)?;
        (slot <= range.last).then_some(&range.node)
    }
}

/// What is heard on which server.
struct Shards {
    /// Whether the servers know sharded channels, as far as is known.
    are_known: bool,
    /// The channels, with their slots.
    wanted: HashMap<String, Slot>,
    /// Connections that only hear, so that what the server says about moving slots is not taken for an answer.
    links: HashMap<Address, Arc<Link>>,
}

/// Where a server says that a call has to go.
enum Redirect {
    /// The slot is there now.
    Moved(Address),
    /// The key is there already.
    Ask(Address),
    /// Some of the keys are there already.
    Wait,
}

impl Cluster {
    /// Finds out who has which slot, and connects in the background.
    pub(super) async fn find(
        seeds: &[Address],
        dial: Dial,
        limits: Limits,
        listeners: &Listeners,
    ) -> RedisResult<Self> {
        let table = Arc::new(Table {
            dial,
            limits,
            seeds: seeds.to_vec(),
            slots: watch::Sender::new(Arc::default()),
            servers: Mutex::default(),
            doubt: Notify::new(),
            shards: Mutex::new(Shards {
                are_known: true,
                wanted: HashMap::new(),
                links: HashMap::new(),
            }),
            listeners: listeners.clone(),
        });
        let slots = table.ask(0).await?;
        table.learn(slots);
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep(Arc::clone(&table))));
        Ok(Self { table, _keeper: keeper })
    }

    /// What the server of the request's slot answers, wherever that is meanwhile.
    pub(super) async fn answer(
        &self,
        lane: Lane,
        request: Request<'_>,
        ends: Instant,
    ) -> RedisResult<Value> {
        let owner = self.owner(request.slot).ok().filter(|_| lane != Lane::Own);
        if let Some(owner) = owner
            && let Some(connected) = owner.now(request.slot)
        {
            let answer = owner.answer(connected, request, ends).await;
            if errors(&answer).next().is_none() {
                return answer;
            }
            return self.follow(lane, request, ends, Some((answer, owner))).await;
        }
        self.follow(lane, request, ends, None).await
    }

    /// The same, going on from an answer that there may be already.
    ///
    /// In a box, because hardly a call needs it, and every one would carry it along.
    fn follow<'a>(
        &'a self,
        lane: Lane,
        request: Request<'a>,
        ends: Instant,
        mut first: Option<(RedisResult<Value>, Arc<Node>)>,
    ) -> Pin<Box<dyn Future<Output = RedisResult<Value>> + Send + 'a>> {
        Box::pin(async move {
            let (mut elsewhere, mut redirections) = (None, 0);
            loop {
                let attempt = match first.take() {
                    Some(attempt) => Ok(attempt),
                    None => self.attempt(lane, request, ends, elsewhere.take()).await,
                };
                let (answer, node) = attempt.inspect_err(|_| self.table.doubt.notify_one())?;
                if errors(&answer).any(|error| error.is_io_error() || is_down(&error)) {
                    self.table.doubt.notify_one();
                }
                let told = errors(&answer)
                    .find_map(|error| Some((redirect(&error, node.address())?, error)));
                let Some((redirect, error)) = told else { return answer };
                redirections += 1;
                elsewhere = match redirect {
                    Redirect::Moved(address) => {
                        self.table.doubt.notify_one();
                        Some((address, false))
                    }
                    Redirect::Ask(address) => Some((address, true)),
                    Redirect::Wait => None,
                };
                if elsewhere.is_none() || redirections > AT_ONCE {
                    // With hardly any time left no answer comes, for which the connection would be given up.
                    if Instant::now() + 2 * MOVING >= ends {
                        return Err(still_moving(&error));
                    }
                    sleep(MOVING).await;
                }
            }
        })
    }

    /// Sends a request to the owner of its slot, or to where it was told to go; also answers who answered, or fails if there is
    /// nobody to ask.
    async fn attempt(
        &self,
        lane: Lane,
        request: Request<'_>,
        ends: Instant,
        elsewhere: Option<(Address, bool)>,
    ) -> RedisResult<(RedisResult<Value>, Arc<Node>)> {
        let mut changes = self.table.slots.subscribe();
        loop {
            let (node, is_asking) = match &elsewhere {
                Some((address, is_asking)) => (self.table.node(address)?, *is_asking),
                None => {
                    let owner = changes.borrow_and_update().owner(request.slot).cloned();
                    (owner.ok_or_else(nobody)?, false)
                }
            };
            let request = request.asking(is_asking);
            if let Lane::Own = lane {
                return Ok((node.alone(request, ends).await, node));
            }
            let connected = tokio::select! {
                biased; // A connection that is there is taken.
                connected = node.shared(request.slot, ends) => connected,
                // Whoever has the slot now may be there already.
                _ = changes.changed(), if elsewhere.is_none() => continue,
            };
            let answer = match connected {
                Ok(connected) => node.answer(connected, request, ends).await,
                Err(error) => Err(error),
            };
            return Ok((answer, node));
        }
    }

    /// The server that has a slot, as far as is known.
    pub(super) fn owner(&self, slot: Slot) -> RedisResult<Arc<Node>> {
        self.table.slots.borrow().owner(slot).cloned().ok_or_else(nobody)
    }

    /// The channel on which a process hears of a pool, from now on if it did not before. None where that did not come to be.
    /// Fails only where it is not allowed.
    pub(super) async fn hear(&self, pool: &str, process: &str) -> RedisResult<Option<String>> {
        let slot = Slot::of(pool);
        let channel = {
            let mut shards = self.table.shards();
            let channel = match shards.are_known {
                true => sharded_channel(pool, process),
                // Redis before 7.0 tells every node of everything.
                false => process.to_owned(),
            };
            if shards.wanted.insert(channel.clone(), slot).is_some() {
                return Ok(Some(channel));
            }
            channel
        };
        let heard = async {
            let link = self.table.hearing(slot).ok_or_else(nobody)?;
            let mut connected = link.connected().await?;
            subscribe(&mut connected.connection, vec![subscription(&channel)]).await
        };
        let heard = timeout(ANSWERED, heard).await;
        match heard.unwrap_or_else(|_| Err(timed_out("answered", ANSWERED))) {
            Ok(()) => Ok(Some(channel)),
            Err(error) if is_unknown(&error) && channel != process => {
                {
                    let mut shards = self.table.shards();
                    shards.are_known = false;
                    shards.wanted.clear();
                }
                Box::pin(self.hear(pool, process)).await
            }
            Err(error) => {
                // The next ticket tries again; this one hears nothing, and is asked about.
                self.table.shards().wanted.remove(&channel);
                if permission::is_missing(&error) {
                    return Err(error);
                }
                self.table.doubt.notify_one();
                Ok(None)
            }
        }
    }
}

/// Keeps the table right.
async fn keep(table: Arc<Table>) {
    for turn in 1.. {
        tokio::select! {
            () = sleep(CALM) => {}
            () = table.doubt.notified() => {}
        }
        match table.ask(turn).await {
            Ok(slots) => table.learn(slots),
            Err(error) => tracing::debug!(%error, "no server tells who has which slot"),
        }
        sleep(ALARMED).await;
    }
}

impl Table {
    fn servers(&self) -> MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shards(&self) -> MutexGuard<'_, Shards> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, address: &Address) -> RedisResult<Arc<Node>> {
        let mut servers = self.servers();
        if let Some(node) = servers.get(address) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Node::begin(self.dial.server(address)?, self.limits)?);
        servers.insert(address.clone(), Arc::clone(&node));
        Ok(node)
    }

    /// Asks one server after the other, beginning with another one each time, lest one that was cut off is believed for ever.
    async fn ask(&self, turn: usize) -> RedisResult<Vec<(Slot, Slot, Address)>> {
        let mut addresses: Vec<_> = {
            let servers = self.servers();
            servers.iter().filter(|(_, node)| node.is_up()).map(|(at, _)| at.clone()).collect()
        };
        addresses.sort_by_cached_key(Address::to_string);
        if !addresses.is_empty() {
            let first = turn % addresses.len();
            addresses.rotate_left(first);
        }
        addresses.extend(self.seeds.iter().cloned());
        let mut problem = nobody();
        for address in addresses {
            let asked = timeout(ANSWERED.max(self.limits.connect), self.ask_one(&address)).await;
            match asked.unwrap_or_else(|_| Err(timed_out("answered", ANSWERED))) {
                Ok(slots) => return Ok(slots),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    async fn ask_one(&self, address: &Address) -> RedisResult<Vec<(Slot, Slot, Address)>> {
        let known = self.servers().get(address).cloned();
        let mut connection = match known.as_ref().and_then(|node| node.hearing().now()) {
            Some(connected) => connected?.connection,
            None => self.dial.server(address)?.connect().await?,
        };
        let cmd = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
        let reply = timeout(ANSWERED, connection.req_packed_command(&cmd)).await;
        let reply = reply.unwrap_or_else(|_| Err(timed_out("answered", ANSWERED)))?;
        parse_slots(reply.extract_error()?, address).ok_or_else(|| {
            RedisError::from((ErrorKind::Parse, "a server's answer is no table of slots"))
        })
    }

    fn learn(self: &Arc<Self>, slots: Vec<(Slot, Slot, Address)>) {
        let range = |(first, last, address): (Slot, Slot, Address)| {
            Some(Range { first, last, node: self.node(&address).ok()? })
        };
        let mut ranges: Vec<_> = slots.into_iter().filter_map(range).collect();
        ranges.sort_by_key(|range| range.first);
        let is_known =
            |address: &Address| ranges.iter().any(|range| range.node.address() == address);
        self.servers().retain(|address, _| is_known(address));
        let parts = |range: &Range| (range.first, range.last, range.node.address().clone());
        if self.slots.borrow().0.iter().map(parts).eq(ranges.iter().map(parts)) {
            return;
        }
        tracing::debug!(ranges = ranges.len(), "the table of slots changed");
        self.slots.send_replace(Arc::new(Slots(ranges)));
        self.hear_again();
    }

    /// The connection that hears what is told about a slot.
    fn hearing(self: &Arc<Self>, slot: Slot) -> Option<Arc<Link>> {
        let address = self.slots.borrow().owner(slot)?.address().clone();
        let target = self.dial.server(&address).ok()?;
        let mut shards = self.shards();
        let link = shards.links.entry(address).or_insert_with_key(|address| {
            let shard = Shard { table: Arc::downgrade(self), address: address.clone() };
            Arc::new(Link::begin(target, Some(Arc::new(shard))))
        });
        Some(Arc::clone(link))
    }

    /// After slots moved their channels are elsewhere, too.
    fn hear_again(self: &Arc<Self>) {
        let slots: Vec<_> = {
            let mut shards = self.shards();
            shards.links.clear();
            shards.wanted.values().copied().collect()
        };
        for slot in slots {
            self.hearing(slot);
        }
        self.listeners.interrupted();
    }
}

/// What is heard on one server.
struct Shard {
    /// Which holds the connection, which holds this.
    table: Weak<Table>,
    address: Address,
}

impl Hearing for Shard {
    fn subscriptions(&self) -> Vec<Cmd> {
        let Some(table) = self.table.upgrade() else { return Vec::new() };
        let slots = Arc::clone(&table.slots.borrow());
        let is_here =
            |slot: Slot| slots.owner(slot).is_some_and(|node| *node.address() == self.address);
        let shards = table.shards();
        let here = shards.wanted.iter().filter(|&(_, &slot)| is_here(slot));
        here.map(|(channel, _)| subscription(channel)).collect()
    }

    fn hear(&self, push: PushInfo) -> bool {
        let Some(table) = self.table.upgrade() else { return false };
        match push.kind {
            PushKind::SMessage | PushKind::Message => table.listeners.message(&push.data),
            // Lost, and subscribed again: what was published between is gone.
            PushKind::Disconnection | PushKind::SSubscribe | PushKind::Subscribe => {
                table.listeners.interrupted();
            }
            // The slot moved. A client might take this for an answer, so the connection is given up.
            PushKind::SUnsubscribe => {
                table.doubt.notify_one();
                return false;
            }
            _ => {}
        }
        true
    }
}

fn subscription(channel: &str) -> Cmd {
    let name = if channel.starts_with('{') { "SSUBSCRIBE" } else { "SUBSCRIBE" };
    redis::cmd(name).arg(channel).to_owned()
}

fn is_unknown(error: &RedisError) -> bool {
    error.to_string().contains("unknown command")
}

/// What an answer refuses, or why there is none: an error, or one for each of several commands.
fn errors(answer: &RedisResult<Value>) -> impl Iterator<Item = RedisError> {
    let replies = match answer {
        Ok(Value::Array(replies)) => &replies[..],
        Ok(reply) => slice::from_ref(reply),
        Err(_) => &[],
    };
    let refused = replies.iter().filter_map(|reply| match reply {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    });
    answer.as_ref().err().cloned().into_iter().chain(refused)
}

/// Where an error says that the call has to go, if it does.
fn redirect(error: &RedisError, from: &Address) -> Option<Redirect> {
    let ErrorKind::Server(kind) = error.kind() else { return None };
    let address = || match (error.redirect_node()?.0, from) {
        // Without a host it is another port of the same.
        (address, Address::Tcp { host, .. }) if address.starts_with(':') => {
            Address::parse(&format!("{host}{address}"))
        }
        (address, _) => Address::parse(address),
    };
    match kind {
        ServerErrorKind::Moved => address().map(Redirect::Moved),
        ServerErrorKind::Ask => address().map(Redirect::Ask),
        ServerErrorKind::TryAgain => Some(Redirect::Wait),
        _ => None,
    }
}

fn is_down(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ClusterDown)
}

/// What it means to be sent elsewhere until there is no time left.
fn still_moving(told: &RedisError) -> RedisError {
    let problem = format!("the slot is still moving: {told}");
    io::Error::new(io::ErrorKind::TimedOut, problem).into()
}

pub(super) fn nobody() -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, "no server has the slot").into()
}

/// Reads what CLUSTER SLOTS answers: ranges with their servers, the primary first.
fn parse_slots(reply: Value, from: &Address) -> Option<Vec<(Slot, Slot, Address)>> {
    let Value::Array(ranges) = reply else { return None };
    let text = |value: &Value| redis::from_redis_value_ref::<Option<String>>(value).ok().flatten();
    let slot = |value: &Value| match value {
        Value::Int(slot) => Slot::numbered(*slot),
        _ => None,
    };
    let range = |range: &Value| {
        let Value::Array(parts) = range else { return None };
        let [first, last, Value::Array(primary), ..] = &**parts else { return None };
        let [host, Value::Int(port), ..] = &**primary else { return None };
        // A server that does not know its own name is where it was asked.
        let host = text(host).filter(|host| !host.is_empty()).or_else(|| match from {
            Address::Tcp { host, .. } => Some(host.clone()),
            Address::Unix(_) => None,
        })?;
        let port = u16::try_from(*port).ok().filter(|&port| port != 0)?;
        Some((slot(first)?, slot(last)?, Address::Tcp { host, port }))
    };
    ranges.iter().map(range).collect()
}
