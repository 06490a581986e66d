package crownest.kernel;

import java.util.ArrayList;
import java.util.List;

/**
 * Records of cells. JShell makes what it declares public, a record too, and Java then wants the
 * record's own constructor to be public: `record P(int x) { P { } }` would not compile. So
 * constructors without a modifier get that one.
 */
final class Records {
    private static final String MODIFIER = "public ";

    private final String text;
    /** Where in the source the modifier was put, ascending. */
    private final List<Integer> inserted;

    private Records(String text, List<Integer> inserted) {
        this.text = text;
        this.inserted = inserted;
    }

    /** A piece of a cell that declares a type. */
    static Records of(String source) {
        List<Integer> places = source.contains("record") ? constructors(source) : List.of();
        StringBuilder text = new StringBuilder(source);
        for (int i = places.size() - 1; i >= 0; i--) {
            text.insert(places.get(i), MODIFIER);
        }
        return new Records(text.toString(), places);
    }

    /** For JShell. */
    String text() {
        return text;
    }

    /** Where in the source something stands that is at `position` in the text. */
    int origin(int position) {
        int shift = 0;
        for (int place : inserted) {
            if (position <= place + shift) {
                break;
            }
            shift += Math.min(MODIFIER.length(), position - place - shift);
        }
        return position - shift;
    }

    private static List<Integer> constructors(String source) {
        List<Integer> places = new ArrayList<>();
        Tokens tokens = new Tokens(source);
        while (tokens.hasNext() && !tokens.isRecordHead()) {
            tokens.skipOne();
        }
        tokens.next();
        String name = tokens.hasNext() ? tokens.word() : "";
        while (tokens.hasNext() && !tokens.is('{')) {
            tokens.skipOne();
        }
        tokens.next();
        boolean startsMember = true;
        while (tokens.hasNext() && !tokens.is('}')) {
            if (startsMember && tokens.is('@') && !tokens.peekWord("interface")) {
                tokens.skipAnnotation();
                continue;
            }
            if (startsMember && tokens.isWord(name) && (tokens.peekIs('(') || tokens.peekIs('{'))) {
                places.add(tokens.start());
            }
            startsMember = tokens.is(';') || tokens.is('{');
            tokens.skipOne();
        }
        return places;
    }
}
