/**
 * Changes of a source text that keep its lines, and the way back from a position in the result.
 */

'use strict';

// Which of several edits at one place comes first.
const [FIRST, CLOSE, OPEN, REPLACE] = [0, 1, 2, 3];

/** Collects replacements of ranges of one text. */
class Edits {
    #list = [];

    constructor(text) {
        this.text = text;
    }

    /** Replaces `text[start, end)`; edits inside of it are dropped. */
    replace(start, end, by) {
        this.#list.push({ start, end, by, rank: REPLACE, partner: 0, order: 0 });
    }

    /** Puts `before` and `after` around a range, outside of what is put around ranges within it. */
    wrap(start, end, before, after) {
        const order = this.#list.length;
        this.#list.push({ start, end: start, by: before, rank: OPEN, partner: -end, order });
        this.#list.push({ start: end, end, by: after, rank: CLOSE, partner: -start, order: -order });
    }

    /** Inserts before everything else at that place. */
    insertFirst(at, text) {
        this.#list.push({ start: at, end: at, by: text, rank: FIRST, partner: 0, order: 0 });
    }

    /** Takes a range away and leaves its line breaks. */
    remove(start, end) {
        this.replace(start, end, this.breaks(start, end));
    }

    /** The line breaks of a range. */
    breaks(start, end) {
        return this.text.slice(start, end).replace(/[^\n]+/g, '');
    }

    /** `{ code, shifts }`: the changed text; `shifts` is what `original` in positions.cjs reads. */
    apply() {
        this.#list.sort(
            (a, b) => a.start - b.start || a.rank - b.rank || a.partner - b.partner || a.order - b.order,
        );
        const pieces = [];
        const shifts = [];
        let [from, line, lineStart] = [0, 1, 0];
        for (const { start, end, by } of this.#list) {
            if (start < from) continue;
            for (let at = this.text.indexOf('\n', lineStart); at !== -1 && at < start;) {
                line += 1;
                lineStart = at + 1;
                at = this.text.indexOf('\n', lineStart);
            }
            pieces.push(this.text.slice(from, start), by);
            if (!by.includes('\n')) shifts.push(line, start - lineStart, end - start, by.length);
            from = end;
        }
        pieces.push(this.text.slice(from));
        return { code: pieces.join(''), shifts: Int32Array.from(shifts) };
    }
}

module.exports = {
    Edits,
};
