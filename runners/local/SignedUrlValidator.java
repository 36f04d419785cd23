import java.net.URLDecoder;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerExtensionsValidatorCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

/**
 * Lets in whoever presents what MSK's IAM access control wants: the call kafka-cluster:Connect as a URL in base64,
 * signed (AWS Signature Version 4) with the key in this process's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
 */
public final class SignedUrlValidator implements AuthenticateCallbackHandler {
    private static final DateTimeFormatter TIME =
            DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").withZone(ZoneOffset.UTC);

    private record Token(String value, String principalName, Long startTimeMs, long lifetimeMs)
            implements OAuthBearerToken {
        @Override
        public Set<String> scope() {
            return Set.of();
        }
    }

    @Override
    public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> entries) {}

    @Override
    public void close() {}

    @Override
    public void handle(Callback[] callbacks) throws UnsupportedCallbackException {
        for (Callback callback : callbacks) {
            if (callback instanceof OAuthBearerValidatorCallback asked) {
                try {
                    asked.token(validate(asked.tokenValue()));
                } catch (GeneralSecurityException | RuntimeException error) {
                    System.out.println("refused: " + error);
                    asked.error("invalid_token", null, null);
                }
            } else if (callback instanceof OAuthBearerExtensionsValidatorCallback extensions) {
                extensions.inputExtensions().map().keySet().forEach(extensions::valid);
            } else {
                throw new UnsupportedCallbackException(callback);
            }
        }
    }

    private static Token validate(String token) throws GeneralSecurityException {
        String url = new String(Base64.getUrlDecoder().decode(token), StandardCharsets.UTF_8);
        String[] parts = url.split("/\\?", 2);
        Map<String, String> query = new TreeMap<>();
        for (String pair : parts[1].split("&")) {
            String[] sides = pair.split("=", 2);
            query.put(sides[0], URLDecoder.decode(sides[1], StandardCharsets.UTF_8));
        }
        String signature = query.remove("X-Amz-Signature");
        query.remove("User-Agent"); // added by clients once they have signed
        String[] scope = query.get("X-Amz-Credential").split("/"); // key, day, region, service, aws4_request
        require(scope[0].equals(System.getenv("AWS_ACCESS_KEY_ID")), "unknown access key " + scope[0]);
        require(scope[3].equals("kafka-cluster"), "signed for " + scope[3]);
        require(query.get("Action").equals("kafka-cluster:Connect"), "the call is " + query.get("Action"));
        String host = parts[0].replace("https://", "");
        require(host.equals("kafka." + scope[2] + ".amazonaws.com"), "the host is " + host);
        Instant from = Instant.from(TIME.parse(query.get("X-Amz-Date")));
        Instant until = from.plusSeconds(Long.parseLong(query.get("X-Amz-Expires")));
        require(Instant.now().isBefore(until), "it expired at " + until);
        byte[] expected = sign(host, query, scope).getBytes(StandardCharsets.UTF_8);
        require(MessageDigest.isEqual(expected, signature.getBytes(StandardCharsets.UTF_8)), "wrong signature");
        return new Token(token, scope[0], from.toEpochMilli(), until.toEpochMilli());
    }

    private static String sign(String host, Map<String, String> query, String[] scope)
            throws GeneralSecurityException {
        StringBuilder canonical = new StringBuilder();
        query.forEach((name, value) -> canonical.append('&').append(encode(name)).append('=').append(encode(value)));
        String request = String.join(
                "\n", "GET", "/", canonical.substring(1), "host:" + host, "", "host", hash(""));
        String day = scope[1] + "/" + scope[2] + "/" + scope[3] + "/aws4_request";
        String text = String.join("\n", "AWS4-HMAC-SHA256", query.get("X-Amz-Date"), day, hash(request));
        byte[] key = ("AWS4" + System.getenv("AWS_SECRET_ACCESS_KEY")).getBytes(StandardCharsets.UTF_8);
        for (String part : day.split("/")) {
            key = hmac(key, part);
        }
        return HexFormat.of().formatHex(hmac(key, text));
    }

    private static String encode(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20").replace("*", "%2A").replace("%7E", "~");
    }

    private static String hash(String text) throws GeneralSecurityException {
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
        return HexFormat.of().formatHex(digest);
    }

    private static byte[] hmac(byte[] key, String text) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(text.getBytes(StandardCharsets.UTF_8));
    }

    private static void require(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalArgumentException(otherwise);
        }
    }
}
