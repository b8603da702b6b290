//! The tasks of all nodes, each in a slot until it ends.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;

use quorate_types::NodeId;

use super::ready::{Place, Ready, TaskWaker};

pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    number: u64,
    node: NodeId,
    origin: &'static Location<'static>,
    /// Absent while it is polled.
    work: Option<Work>,
    waker: Waker,
    flag: Arc<TaskWaker>,
}

#[derive(Default)]
pub(super) struct Tasks {
    slots: Vec<Option<Task>>,
    free: Vec<usize>,
    last: u64,
}

impl Tasks {
    /// A task that is ready at once.
    pub(super) fn add(
        &mut self,
        ready: &Ready,
        node: NodeId,
        origin: &'static Location<'static>,
        work: Work,
    ) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.last += 1;
        let number = self.last;
        let flag = ready.waker(Place::new(slot, number));
        let waker = Waker::from(Arc::clone(&flag));
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Task { number, node, origin, work: Some(work), waker, flag });
        }
    }

    fn at(&self, place: Place) -> Option<&Task> {
        self.slots.get(place.slot)?.as_ref().filter(|task| task.number == place.number())
    }

    pub(super) fn node(&self, place: Place) -> Option<NodeId> {
        self.at(place).map(|task| task.node)
    }

    pub(super) fn origin(&self, place: Place) -> Option<&'static Location<'static>> {
        self.at(place).map(|task| task.origin)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a task out to be polled; it may be woken from here on.
    pub(super) fn take(&mut self, place: Place) -> Option<(Work, Waker)> {
        let task = self.slots.get_mut(place.slot)?.as_mut()?;
        if task.number != place.number() {
            return None;
        }
        task.flag.begin();
        Some((task.work.take()?, task.waker.clone()))
    }

    /// Puts it back. It is given back where it was killed meanwhile, to be dropped.
    pub(super) fn put(&mut self, place: Place, work: Work) -> Option<Work> {
        match self.slots.get_mut(place.slot).and_then(Option::as_mut) {
            Some(task) if task.number == place.number() => {
                task.work = Some(work);
                None
            }
            Some(_) | None => Some(work),
        }
    }

    /// It has ended.
    pub(super) fn end(&mut self, place: Place) {
        if self.at(place).is_some() {
            self.clear(place.slot);
        }
    }

    fn clear(&mut self, slot: usize) -> Option<Work> {
        let task = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        task.flag.end();
        task.work
    }

    /// Takes out every task of `node`, or all of all nodes.
    pub(super) fn clear_of(&mut self, node: Option<NodeId>) -> Vec<Work> {
        let is_its = |task: &Option<Task>| {
            task.as_ref().is_some_and(|task| node.is_none_or(|node| node == task.node))
        };
        let slots = self.slots.iter().enumerate().filter(|(_, task)| is_its(task));
        let slots: Vec<usize> = slots.map(|(slot, _)| slot).collect();
        slots.into_iter().filter_map(|slot| self.clear(slot)).collect()
    }
}
