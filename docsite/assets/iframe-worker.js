// Search in a site that is read from a folder. A browser starts no worker from a file, so there the search script runs in
// a hidden frame of the page instead, which looks like a worker to whoever talks to it.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      const inside = frame.contentWindow;
      this.tell = (data) => inside.dispatchEvent(new MessageEvent("message", { data }));
      this.ready = new Promise((resolve) => {
        inside.postMessage = (data) => {
          const answer = new MessageEvent("message", { data });
          this.dispatchEvent(answer);
          if (this.onmessage) this.onmessage(answer);
        };
        const script = inside.document.createElement("script");
        script.src = new URL(url, location.href).href;
        script.onload = resolve;
        inside.document.head.appendChild(script);
      });
      this.frame = frame;
    }

    postMessage(data) {
      this.ready.then(() => this.tell(data));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
