package crownest.kernel;

/** The text of the comment that a declaration begins with. */
final class DocComments {
    private static final String START = "/**";

    private DocComments() {}

    static String of(String source) {
        String trimmed = source.stripLeading();
        int end = trimmed.indexOf("*/");
        if (!trimmed.startsWith(START) || end < START.length()) {
            return "";
        }
        StringBuilder text = new StringBuilder();
        for (String line : trimmed.substring(START.length(), end).split("\r\n|\r|\n")) {
            String plain = line.strip();
            plain = plain.startsWith("*") ? plain.substring(1).strip() : plain;
            if (!plain.isEmpty() || text.length() > 0) {
                text.append(text.length() == 0 ? "" : "\n").append(plain);
            }
        }
        return text.toString().stripTrailing();
    }
}
