package crownest.kernel;

import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.security.GeneralSecurityException;
import java.security.Key;
import java.security.KeyStore;
import java.security.KeyStoreException;
import java.security.KeyStoreSpi;
import java.security.Provider;
import java.security.cert.Certificate;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.util.Collections;
import java.util.Date;
import java.util.Enumeration;

/**
 * Certificates of authorities from a PEM file, as everybody but Java keeps them: what SSL_CERT_FILE
 * names holds for Java as well. Registered by the security.properties of build.sh, so that nothing
 * of it is loaded before the first TLS connection.
 */
public final class PemProvider extends Provider {
    static final String TYPE = "CROWNEST-PEM";
    private static final long serialVersionUID = 1;

    public PemProvider() {
        super("CrowNest", "1", "certificates of authorities in PEM files");
        put("KeyStore." + TYPE, Store.class.getName());
    }

    /** Read-only. A file that is not PEM (a cell has chosen another one) is read as Java would. */
    public static final class Store extends KeyStoreSpi {
        private static final int MARK_BYTES = 4;
        private static final byte[][] OF_JAVA = {{(byte) 0xfe, (byte) 0xed}, {0x30, (byte) 0x82}, {0x30, (byte) 0x80}};

        private KeyStore store;

        @Override
        public void engineLoad(InputStream stream, char[] password)
                throws IOException, CertificateException, java.security.NoSuchAlgorithmException {
            try {
                store = KeyStore.getInstance(KeyStore.getDefaultType());
                InputStream in = stream == null ? null : new BufferedInputStream(stream);
                if (in == null || isOfJava(in)) {
                    store.load(in, password);
                    return;
                }
                store.load(null, null);
                int number = 0;
                for (Certificate one : CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                    store.setCertificateEntry("authority-" + number++, one);
                }
            } catch (KeyStoreException failed) {
                throw new IOException(failed);
            }
        }

        private static boolean isOfJava(InputStream in) throws IOException {
            in.mark(MARK_BYTES);
            byte[] first = in.readNBytes(2);
            in.reset();
            for (byte[] known : OF_JAVA) {
                if (java.util.Arrays.equals(first, known)) {
                    return true;
                }
            }
            return false;
        }

        private interface Question<T> {
            T ask(KeyStore store) throws GeneralSecurityException;
        }

        private <T> T ask(Question<T> question, T otherwise) {
            try {
                return store == null ? otherwise : question.ask(store);
            } catch (GeneralSecurityException failed) {
                return otherwise;
            }
        }

        @Override
        public Enumeration<String> engineAliases() {
            return ask(KeyStore::aliases, Collections.emptyEnumeration());
        }

        @Override
        public boolean engineContainsAlias(String alias) {
            return ask(kept -> kept.containsAlias(alias), false);
        }

        @Override
        public int engineSize() {
            return ask(KeyStore::size, 0);
        }

        @Override
        public boolean engineIsKeyEntry(String alias) {
            return ask(kept -> kept.isKeyEntry(alias), false);
        }

        @Override
        public boolean engineIsCertificateEntry(String alias) {
            return ask(kept -> kept.isCertificateEntry(alias), false);
        }

        @Override
        public Key engineGetKey(String alias, char[] password) {
            return ask(kept -> kept.getKey(alias, password), null);
        }

        @Override
        public Certificate[] engineGetCertificateChain(String alias) {
            return ask(kept -> kept.getCertificateChain(alias), null);
        }

        @Override
        public Certificate engineGetCertificate(String alias) {
            return ask(kept -> kept.getCertificate(alias), null);
        }

        @Override
        public Date engineGetCreationDate(String alias) {
            return ask(kept -> kept.getCreationDate(alias), null);
        }

        @Override
        public String engineGetCertificateAlias(Certificate certificate) {
            return ask(kept -> kept.getCertificateAlias(certificate), null);
        }

        @Override
        public void engineSetKeyEntry(String alias, Key key, char[] password, Certificate[] chain)
                throws KeyStoreException {
            throw new KeyStoreException("read-only");
        }

        @Override
        public void engineSetKeyEntry(String alias, byte[] key, Certificate[] chain) throws KeyStoreException {
            throw new KeyStoreException("read-only");
        }

        @Override
        public void engineSetCertificateEntry(String alias, Certificate certificate) throws KeyStoreException {
            throw new KeyStoreException("read-only");
        }

        @Override
        public void engineDeleteEntry(String alias) throws KeyStoreException {
            throw new KeyStoreException("read-only");
        }

        @Override
        public void engineStore(OutputStream stream, char[] password) throws IOException {
            throw new IOException("read-only");
        }
    }
}
