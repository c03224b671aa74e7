# Runs Synapse as long as the test process: when the test process's end of the pipe closes, however that process ended,
# the keeper kills Synapse and removes its directory. The line "stop" ends Synapse with SIGTERM and keeps the directory.
import os, shutil, signal, subprocess, sys, threading

home, arguments = sys.argv[1], sys.argv[2:]
child = subprocess.Popen([sys.executable, "-m", "synapse.app.homeserver", *arguments],
                         stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd=home)
print(child.pid, flush=True)

leaving = threading.Event()


def listen():
    word = sys.stdin.readline().strip()
    leaving.set()
    if word == "stop":
        child.send_signal(signal.SIGCONT)
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
    else:
        child.kill()
        child.wait()
        shutil.rmtree(home, ignore_errors=True)


listener = threading.Thread(target=listen, daemon=True)
listener.start()
child.wait()
if leaving.is_set():
    listener.join()
