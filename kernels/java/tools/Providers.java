/** How many security providers this JDK has: the next number is free for ours. */
public final class Providers {
    private Providers() {}

    public static void main(String[] arguments) {
        System.out.println(java.security.Security.getProviders().length);
    }
}
