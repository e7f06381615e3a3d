use std::time::Duration;

/// Splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The choices of this seed for one of many who choose.
    pub(crate) fn new(seed: u64, who: &[u64]) -> Self {
        let mut rng = Self(seed);
        for number in who {
            rng = Self(rng.next() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let last = u64::try_from(items.len()).unwrap() - 1;
        &items[usize::try_from(self.between(0, last)).unwrap()]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, usize::try_from(self.between(0, i.try_into().unwrap())).unwrap());
        }
    }
}

/// Kinds of something, each of which has its turn before the first comes again.
#[derive(Debug)]
pub(crate) struct Deck<T: 'static> {
    kinds: &'static [T],
    left: Vec<usize>,
    drawn: Vec<u64>,
}

impl<T: Copy> Deck<T> {
    pub(crate) fn new(kinds: &'static [T]) -> Self {
        Self { kinds, left: Vec::new(), drawn: vec![0; kinds.len()] }
    }

    pub(crate) fn draw(&mut self, rng: &mut Rng) -> T {
        if self.left.is_empty() {
            self.left.extend(0..self.kinds.len());
            rng.shuffle(&mut self.left);
        }
        let kind = self.left.pop().expect("there is a kind");
        self.drawn[kind] += 1;
        self.kinds[kind]
    }

    /// All kinds, with how often each had its turn.
    pub(crate) fn drawn(&self) -> impl Iterator<Item = (T, u64)> {
        self.kinds.iter().copied().zip(self.drawn.iter().copied())
    }
}
