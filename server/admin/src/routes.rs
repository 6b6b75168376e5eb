//! What a path is: its method, who may ask, what answers, and what its description says. One table for
//! routing, rights and the OpenAPI document.

use std::pin::Pin;
use std::sync::Arc;

use crate::admin::Admin;
use crate::answer::Reply;
use crate::auth::Right;
use crate::request::Request;

/// A reply that takes waiting for.
pub type Later = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// How a path is answered.
#[derive(Clone, Copy)]
pub enum Run {
    Now(fn(&Admin, &Request) -> Reply),
    Later(fn(Arc<Admin>, Request) -> Later),
}

/// Makes a [`Run::Later`] of an `async fn`.
macro_rules! later {
    ($handler:expr) => {
        $crate::routes::Run::Later(|admin, request| Box::pin($handler(admin, request)))
    };
}
pub(crate) use later;

/// One method of one path.
#[derive(Clone, Copy)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub right: Right,
    pub run: Run,
    pub about: &'static str,
    /// The type of the body and of the answer, by their names in the description.
    pub takes: Option<&'static str>,
    pub gives: Gives,
    /// Answers before there is a cluster, and asks nobody for credentials then.
    pub bootstrap: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gives {
    /// An object without a type of its own.
    Document,
    One(&'static str),
    List(&'static str),
    File,
}

pub const fn get(path: &'static str, right: Right, run: Run, about: &'static str) -> Route {
    Route::new(Method::Get, path, right, run, about)
}

pub const fn post(path: &'static str, right: Right, run: Run, about: &'static str) -> Route {
    Route::new(Method::Post, path, right, run, about)
}

pub const fn put(path: &'static str, right: Right, run: Run, about: &'static str) -> Route {
    Route::new(Method::Put, path, right, run, about)
}

pub const fn delete(path: &'static str, right: Right, run: Run, about: &'static str) -> Route {
    Route::new(Method::Delete, path, right, run, about)
}

impl Route {
    const fn new(
        method: Method,
        path: &'static str,
        right: Right,
        run: Run,
        about: &'static str,
    ) -> Self {
        let gives = Gives::Document;
        Self { method, path, right, run, about, takes: None, gives, bootstrap: false }
    }

    pub const fn takes(mut self, name: &'static str) -> Self {
        self.takes = Some(name);
        self
    }

    pub const fn gives(mut self, name: &'static str) -> Self {
        self.gives = Gives::One(name);
        self
    }

    pub const fn lists(mut self, name: &'static str) -> Self {
        self.gives = Gives::List(name);
        self
    }

    pub const fn downloads(mut self) -> Self {
        self.gives = Gives::File;
        self
    }

    pub const fn before_there_is_a_cluster(mut self) -> Self {
        self.bootstrap = true;
        self
    }
}

impl Method {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}
