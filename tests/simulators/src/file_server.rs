//! A web server with files: Matterbridge's media server, and the host of Gitter's avatars.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, task::AbortHandle};

/// A file: its type, its content, and how often it was fetched.
type File = (&'static str, Vec<u8>, u64);
type Files = Arc<Mutex<HashMap<String, File>>>;

/// A running server; it stops when it is dropped.
pub struct FileServer {
    address: SocketAddr,
    files: Files,
    server: AbortHandle,
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FileServer {
    /// Starts listening on the loopback interface.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("cannot listen for the file server")?;
        let address = listener.local_addr()?;
        let files = Files::default();
        let router = Router::new().fallback(serve).with_state(files.clone());
        // It ends when the file server is dropped, so it has no result.
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self {
            address,
            files,
            server: server.abort_handle(),
        })
    }

    /// The host and port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Adds a file; returns its URL.
    #[must_use]
    pub fn put(&self, name: &str, mime: &'static str, content: Vec<u8>) -> String {
        known(&self.files).insert(format!("/{name}"), (mime, content, 0));
        format!("http://{}/{name}", self.address)
    }

    /// How often a file was downloaded.
    #[must_use]
    pub fn fetched(&self, name: &str) -> u64 {
        let files = known(&self.files);
        files
            .get(&format!("/{name}"))
            .map_or(0, |(_, _, count)| *count)
    }
}

fn known(files: &Files) -> MutexGuard<'_, HashMap<String, File>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(State(files): State<Files>, uri: Uri) -> Response {
    match known(&files).get_mut(uri.path()) {
        Some((mime, content, count)) => {
            *count += 1;
            ([(header::CONTENT_TYPE, *mime)], content.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
