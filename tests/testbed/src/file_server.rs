//! A web server that has files: what Matterbridge calls a media server, and where Gitter has pictures of people.

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
        let listener = listener.context("listening for a server of files")?;
        let address = listener.local_addr()?;
        let files = Files::default();
        let router = Router::new().fallback(serve).with_state(files.clone());
        // Ends with the shelf: there is no result to look at.
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

    /// Puts a file there, and says where it is.
    #[must_use]
    pub fn put(&self, name: &str, mime: &'static str, content: Vec<u8>) -> String {
        known(&self.files).insert(format!("/{name}"), (mime, content, 0));
        format!("http://{}/{name}", self.address)
    }

    /// How often a file was fetched.
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
