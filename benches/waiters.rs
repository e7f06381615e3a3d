//! Processes that wait: this program, started again, with a manager and many tasks.
//!
//! Each task acquires the pool's only unit, notes when it had it and when it let it go, and queues
//! up again. Fencing numbers tell in which order, and the clock of the machine how long it took,
//! from whatever process to whatever other.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokenpool::{
    Claim, Config, Lease, Manager, PoolName, Registrar, ResourceConstraintsSpec,
    ResourceRegistrar as _, Wait,
};
use tokio::time::sleep;

use crate::calls::{PLUGIN, Token};
use crate::server::Server;
use crate::stage::pool_name;

/// The option that makes this program a process that waits.
pub(crate) const OPTION: &str = "--waiters";
/// The pool that is waited for, of one unit.
pub(crate) const POOL: &str = "baton";
/// The word on standard input from which on holders pause.
const CALM: &str = "calm";
/// What a holder takes to let the last one's commands end, when calm.
const PAUSE: Duration = Duration::from_millis(2);

/// Processes with waiting tasks; ended when dropped.
pub(crate) struct Waiters(Vec<Process>);

struct Process {
    child: Child,
    commands: ChildStdin,
    output: ChildStdout,
}

/// One holder of the unit, in nanoseconds of the machine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) fencing_number: u64,
    /// When its task had the unit.
    pub(crate) running: u64,
    /// What a PING took it meanwhile; 0 when it rushed.
    pub(crate) ping: u64,
    /// When its task let the unit go.
    pub(crate) released: u64,
}

impl Waiters {
    /// Starts so many tasks in so many processes.
    pub(crate) fn start(server: &Server, tasks: usize, processes: usize) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let process = |at: usize| {
            let of_process = (at * tasks / processes, (at + 1) * tasks / processes);
            let mut child = Command::new(&program)
                .args([OPTION, &server.url(), &of_process.0.to_string(), &of_process.1.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("this program can be started again");
            let commands = child.stdin.take().expect("its input is piped");
            let output = child.stdout.take().expect("its output is piped");
            Process { child, commands, output }
        };
        Self((0..processes).map(process).collect())
    }

    /// Has holders pause and take the time of a PING before they let go, one at a time.
    pub(crate) fn calm(&mut self) {
        for process in &mut self.0 {
            writeln!(process.commands, "{CALM}").expect("the process listens");
        }
    }

    /// Ends all processes, and tells who held the unit in what order.
    pub(crate) fn end(mut self) -> Vec<Turn> {
        let mut turns: Vec<_> = self.0.drain(..).flat_map(Process::end).collect();
        turns.sort_by_key(|turn| turn.fencing_number);
        turns
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        for process in self.0.drain(..) {
            process.end();
        }
    }
}

impl Process {
    fn end(self) -> Vec<Turn> {
        let Self { mut child, commands, mut output } = self;
        drop(commands);
        let mut text = String::new();
        let read = output.read_to_string(&mut text);
        let _ = child.wait();
        read.expect("the process writes text");
        text.lines().filter_map(Turn::parse).collect()
    }
}

impl Turn {
    fn line(self) -> String {
        let Self { fencing_number, running, ping, released } = self;
        format!("{fencing_number} {running} {ping} {released}\n")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split(' ').map(|word| word.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { fencing_number: next()?, running: next()?, ping: next()?, released: next()? })
    }
}

/// What a started process does: it waits, until its input ends.
pub(crate) fn run(arguments: &[String]) {
    let [url, first, end] = arguments else { panic!("{OPTION} takes an address and two numbers") };
    let numbers = [first, end].map(|number| number.parse::<u64>().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let desk = runtime.block_on(open(url)).expect("the library opens the server");
    for n in numbers[0]..numbers[1] {
        let desk = Arc::clone(&desk);
        runtime
            .spawn(async move { desk.wait(&Token::nth(n)).await.expect("the library can wait") });
    }
    for command in BufReader::new(std::io::stdin()).lines().map_while(Result::ok) {
        assert_eq!(command, CALM, "there is no other command");
        desk.calm.store(true, Ordering::Relaxed);
    }
    let turns = desk.turns.lock().expect("no task panics");
    let text: String = turns.iter().map(|turn| turn.line()).collect();
    std::io::stdout().write_all(text.as_bytes()).expect("the output is read");
    // The tickets end with the server.
    std::process::exit(0);
}

/// What the tasks of a process share.
struct Desk {
    manager: Manager,
    pool: PoolName,
    bare: MultiplexedConnection,
    calm: AtomicBool,
    turns: Mutex<Vec<Turn>>,
}

async fn open(url: &str) -> tokenpool::Result<Arc<Desk>> {
    let registrar = Registrar::new(Config::redis_at(url)?.open().await?);
    registrar.for_plugin(PLUGIN.parse()?).register_resource_quota(&POOL.parse()?, 1)?;
    let manager = registrar.build().await?;
    let client = redis::Client::open(url).expect("the address is good");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let bare = client.get_multiplexed_async_connection_with_config(&config).await;
    let bare = bare.expect("the server accepts connections");
    let (calm, turns) = Default::default();
    Ok(Arc::new(Desk { manager, pool: pool_name(POOL), bare, calm, turns }))
}

impl Desk {
    async fn wait(&self, token: &Token) -> tokenpool::Result<()> {
        let execution = token.execution();
        let claim = claim(token)?;
        loop {
            let claimed = self.manager.acquire(
                &self.pool,
                &execution,
                claim.clone(),
                ResourceConstraintsSpec::NONE,
                Wait::forever(),
            );
            let unit = match claimed.await {
                Ok(acquired) => acquired.granted().expect("who waits for ever is granted"),
                // A busy machine: it queues up again.
                Err(error) if error.is_retryable() => continue,
                Err(error) => return Err(error),
            };
            let running = now();
            let mut ping = 0;
            let calm = self.calm.load(Ordering::Relaxed);
            if calm {
                sleep(PAUSE).await;
                ping = self.ping().await;
                sleep(PAUSE / 2).await;
            }
            let fencing_number = unit.fencing_number().map_or(0, |number| number.get());
            let released = now();
            // Without an answer it is tried again, and the next turn tells.
            let _ = unit.release().await;
            let turn = Turn { fencing_number, running, ping, released };
            self.turns.lock().expect("no task panics").push(turn);
            if calm {
                sleep(PAUSE / 2).await;
            }
        }
    }

    async fn ping(&self) -> u64 {
        let started = now();
        let reply = self.bare.clone().send_packed_command(&redis::cmd("PING")).await;
        drop(reply.expect("the server answers"));
        now() - started
    }
}

/// A claim with a lease that is renewed while the unit is held.
pub(crate) fn claim(token: &Token) -> tokenpool::Result<Claim> {
    let lease = Lease::new(Duration::from_secs(30))?;
    Ok(Claim::from(token.token.parse::<tokenpool::AllocationToken>()?).with_lease(lease))
}

/// Nanoseconds of a clock that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
