const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u;
const combining = /\p{Mark}|\u200b|\u200d|\ufe0f/u;
// oxlint-disable-next-line no-control-regex -- they are what this is about
const control = /[\u0000-\u001f\u007f-\u009f]/g;

/**
 * Text from images, logs and other machines as it may stand in a line of ours: what would move the cursor or colour the
 * terminal is shown as a dot.
 */
export function harmless(text: string): string {
  return text.replace(control, "·");
}

/** How many cells of a terminal `text` takes. It holds no escape sequences. */
export function displayWidth(text: string): number {
  // oxlint-disable-next-line no-control-regex -- the common case, found fast
  if (/^[\u0020-\u007e]*$/.test(text)) return text.length;
  let width = 0;
  for (const character of text) width += cellsOf(character);
  return width;
}

function cellsOf(character: string): number {
  // Latin letters, and the arrows and lines that tables are made of: the expressions below take long to compile.
  if (character < "\u0300" || (character >= "\u2010" && character < "\u231a")) return 1;
  if (combining.test(character)) return 0;
  return wide.test(character) ? 2 : 1;
}

/** `text` in at most `width` cells; what was cut off is an ellipsis. */
export function truncate(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  if (width < 1) return "";
  let kept = "";
  let used = 0;
  for (const character of text) {
    const cells = displayWidth(character);
    if (used + cells > width - 1) break;
    kept += character;
    used += cells;
  }
  return `${kept}…`;
}

export function padEnd(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - displayWidth(text)));
}

/** `text` in lines of at most `width` cells, broken between words; a word that is longer has a line of its own. */
export function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line === "" || displayWidth(longer) <= width) {
      line = longer;
      continue;
    }
    lines.push(line);
    line = word;
  }
  return [...lines, line];
}
