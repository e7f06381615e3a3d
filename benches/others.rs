//! How much of the machine other processes take meanwhile: time that they take from the server
//! shows up as the scripts' cost.

/// Processor time since the machine started, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    all: i64,
    busy: i64,
    /// Of this process and of the servers that it has ended.
    own: i64,
}

impl Ticks {
    /// What `/proc` says; zeros where there is none.
    pub(crate) fn now() -> Self {
        let numbers = |text: &str| -> Vec<i64> {
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        // user, nice, system, idle, waiting for disks, interrupts, ..., all in the first line
        let machine = numbers(read("/proc/stat").lines().next().unwrap_or_default());
        let idle: i64 = machine.iter().skip(3).take(2).sum();
        let all = machine.iter().take(8).sum::<i64>();
        // The process's name, in parentheses, may have spaces; its state is no number.
        let process = read("/proc/self/stat");
        let process = numbers(process.rsplit(')').next().unwrap_or_default());
        Self { all, busy: all - idle, own: process.iter().skip(10).take(4).sum() }
    }

    /// Share of the machine that others took since then, between 0 and 1.
    pub(crate) fn others_since(self, before: Self) -> f64 {
        let busy = (self.busy - before.busy) - (self.own - before.own);
        busy.max(0) as f64 / (self.all - before.all).max(1) as f64
    }
}
