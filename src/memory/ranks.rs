//! Who stands where in the queue.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::name::Member;

/// The tickets by rank, those of the same rank by member, and the position of each. Every step is logarithmic.
///
/// A treap: a search tree by key that is a heap by `height`. The heights are hashes of the keys, so that the tree is as
/// deep as a random one, and the same for the same tickets however they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ranks {
    root: Tree,
}

type Tree = Option<Box<Node>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    rank: u64,
    member: Member,
    height: u64,
    /// Number of nodes here and below.
    size: u64,
    left: Tree,
    right: Tree,
}

impl Ranks {
    pub(super) fn insert(&mut self, rank: u64, member: Member) {
        let mut hasher = DefaultHasher::new();
        (rank, &member).hash(&mut hasher);
        let height = hasher.finish();
        let (left, right) = split(self.root.take(), (rank, &member));
        let node = Node { rank, member, height, size: 1, left: None, right: None };
        self.root = merge(merge(left, Some(Box::new(node))), right);
    }

    pub(super) fn remove(&mut self, rank: u64, member: &Member) {
        remove(&mut self.root, (rank, member));
    }

    /// How many tickets stand before this one.
    pub(super) fn position(&self, rank: u64, member: &Member) -> u64 {
        let mut before = 0;
        let mut tree = &self.root;
        while let Some(node) = tree {
            match (rank, member).cmp(&node.key()) {
                Ordering::Less => tree = &node.left,
                Ordering::Equal => return before + size(&node.left),
                Ordering::Greater => {
                    before += size(&node.left) + 1;
                    tree = &node.right;
                }
            }
        }
        before
    }

    /// The tickets from a rank on, in their order.
    pub(super) fn from(&self, rank: u64) -> impl Iterator<Item = (u64, &Member)> {
        let mut ahead = Vec::new();
        let mut tree = self.root.as_deref();
        while let Some(node) = tree {
            if node.rank < rank {
                tree = node.right.as_deref();
            } else {
                ahead.push(node);
                tree = node.left.as_deref();
            }
        }
        std::iter::from_fn(move || {
            let node = ahead.pop()?;
            let mut next = node.right.as_deref();
            while let Some(below) = next {
                ahead.push(below);
                next = below.left.as_deref();
            }
            Some(node.key())
        })
    }
}

impl Node {
    fn key(&self) -> (u64, &Member) {
        (self.rank, &self.member)
    }

    fn count(&mut self) {
        self.size = size(&self.left) + 1 + size(&self.right);
    }
}

fn size(tree: &Tree) -> u64 {
    tree.as_ref().map_or(0, |node| node.size)
}

/// What stands before a key, and the rest.
fn split(tree: Tree, key: (u64, &Member)) -> (Tree, Tree) {
    let Some(mut node) = tree else { return (None, None) };
    if node.key() < key {
        let (before, rest) = split(node.right.take(), key);
        node.right = before;
        node.count();
        (Some(node), rest)
    } else {
        let (before, rest) = split(node.left.take(), key);
        node.left = rest;
        node.count();
        (before, Some(node))
    }
}

/// One tree of two, of which the first stands before the second.
fn merge(first: Tree, second: Tree) -> Tree {
    match (first, second) {
        (Some(mut first), Some(second)) if first.height >= second.height => {
            first.right = merge(first.right.take(), Some(second));
            first.count();
            Some(first)
        }
        (Some(first), Some(mut second)) => {
            second.left = merge(Some(first), second.left.take());
            second.count();
            Some(second)
        }
        (tree, None) | (None, tree) => tree,
    }
}

fn remove(tree: &mut Tree, key: (u64, &Member)) {
    let Some(mut node) = tree.take() else { return };
    *tree = match key.cmp(&node.key()) {
        Ordering::Equal => merge(node.left, node.right),
        side => {
            remove(if side.is_lt() { &mut node.left } else { &mut node.right }, key);
            node.count();
            Some(node)
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::error::Result;

    #[test]
    fn positions_are_those_of_a_sorted_list() -> Result<()> {
        let (mut ranks, mut sorted) = (Ranks::default(), BTreeSet::new());
        let mut number = 1_u64;
        for _ in 0..2000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (rank, name) = (number >> 58, (number >> 32) % 16);
            let key = (rank, Member::parse(&format!("ex:p:d:e-{name}"))?);
            if sorted.contains(&key) {
                ranks.remove(key.0, &key.1);
                sorted.remove(&key);
            } else {
                ranks.insert(key.0, key.1.clone());
                sorted.insert(key);
            }
            let listed: Vec<_> =
                ranks.from(20).map(|(rank, member)| (rank, member.clone())).collect();
            assert!(sorted.iter().filter(|key| key.0 >= 20).eq(&listed));
            for (position, (rank, member)) in sorted.iter().enumerate() {
                assert_eq!(ranks.position(*rank, member), position as u64);
            }
        }
        Ok(())
    }

    #[test]
    fn the_tree_stays_flat_and_forgets_how_it_came() -> Result<()> {
        fn depth(tree: &Tree) -> usize {
            tree.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
        }
        let member = Member::parse("ex:p:d:e-t")?;
        let (mut up, mut down) = (Ranks::default(), Ranks::default());
        for rank in 0..10_000 {
            up.insert(rank, member.clone());
            down.insert(9_999 - rank, member.clone());
        }
        assert!(depth(&up.root) < 50, "{}", depth(&up.root));
        assert_eq!(up, down);
        Ok(())
    }
}
