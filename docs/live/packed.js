// The data that build.js has packed into the page.

/** The bytes of an element, or null if there is no such element. */
export async function unpacked(id) {
  const element = document.getElementById(id);
  if (!element) return null;
  const zipped = await fetch(`data:application/gzip;base64,${element.textContent}`);
  element.textContent = "";
  const stream = zipped.body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
