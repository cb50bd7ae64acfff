// Where pictures come from: chosen, dropped, pasted, or taken with a camera. Each calls `take` with a list of files.

const part = (id) => document.getElementById(id);

export function listen(take) {
  part("chooser").addEventListener("change", () => {
    take([...part("chooser").files]);
    part("chooser").value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", ({ clipboardData }) => take([...clipboardData.files]));
  listenToDrops(take);
  if (navigator.mediaDevices?.getUserMedia) listenToCamera(take);
}

function listenToDrops(take) {
  const over = (is) => part("sources").classList.toggle("over", is);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(event.dataTransfer.types.includes("Files"));
  });
  document.addEventListener("dragleave", (event) => over(event.relatedTarget !== null));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    take([...event.dataTransfer.files]);
  });
}

function listenToCamera(take) {
  const [camera, video] = [part("camera"), part("video")];
  let taken = 0;
  part("open-camera").hidden = false;
  part("open-camera").addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      camera.showModal();
    } catch {
      complain("The camera cannot be used: there is none, or this page may not.");
    }
  });
  part("shoot").addEventListener("click", async () => {
    if (video.videoWidth === 0) return; // it has not shown anything yet
    taken += 1;
    take([new File([await frame(video)], `camera ${taken}.png`, { type: "image/png" })]);
    camera.close();
  });
  part("close-camera").addEventListener("click", () => camera.close());
  camera.addEventListener("close", () => {
    video.srcObject.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  });
}

function frame(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Say what went wrong apart from any one picture; "" takes it back. */
export function complain(text) {
  part("trouble").textContent = text;
  part("trouble").hidden = text === "";
}
