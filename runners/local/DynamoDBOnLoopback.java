import com.amazonaws.services.dynamodbv2.local.server.LocalDynamoDBRequestHandler;
import com.amazonaws.services.dynamodbv2.local.server.LocalDynamoDBServerHandler;
import java.net.InetSocketAddress;
import org.eclipse.jetty.server.Server;

/** DynamoDB Local on 127.0.0.1: its own main class would listen on every interface. */
public final class DynamoDBOnLoopback {
    private DynamoDBOnLoopback() {}

    /** Arguments: the port, and the directory of the data; without the latter they are kept in memory. */
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        String directory = arguments.length > 1 ? arguments[1] : null;
        // The same tables for all regions and access keys, and there as soon as they are created.
        var requests = new LocalDynamoDBRequestHandler(0, directory == null, directory, true, false);
        Server server = new Server(new InetSocketAddress("127.0.0.1", port));
        server.setHandler(new LocalDynamoDBServerHandler(requests, null));
        server.start();
        server.join();
    }
}
