//! A person at a Matrix client of their own, for the testbed: own device, own store, no shortcut into the bridge.
