package org.apache.beam.runners.fnexecution.control;

import java.util.Collections;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.DelayedBundleApplication;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.ProcessBundleResponse;
import org.apache.beam.runners.core.StateInternalsFactory;
import org.apache.beam.runners.core.StateNamespace;
import org.apache.beam.runners.core.StateNamespaces;
import org.apache.beam.runners.core.StateTags;
import org.apache.beam.runners.core.TimerInternalsFactory;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.state.TimeDomain;
import org.apache.beam.sdk.transforms.windowing.BoundedWindow;
import org.apache.beam.sdk.util.CoderUtils;
import org.apache.beam.sdk.values.WindowedValue;
import org.apache.beam.sdk.values.WindowedValues;
import org.joda.time.Duration;
import org.joda.time.Instant;

/**
 * What becomes of the rest of an element that a splittable function put off, on Flink.
 *
 * <p>Stands in for the class of the same name of older Beams, which keeps every rest under a name of its own, for
 * ever: RocksDB gets a column family each time, and every checkpoint all of them (Beam's issue 27648). Here a rest is
 * kept under its place among those of its bundle. State belongs to the element, of which there is one rest at a time,
 * so the next one takes the place of the one before.
 */
public class BundleCheckpointHandlers {

  public static class StateAndTimerBundleCheckpointHandler<T> implements BundleCheckpointHandler {
    private static final String PREFIX = "sdf_checkpoint";

    private final TimerInternalsFactory<T> timers;
    private final StateInternalsFactory<T> states;
    private final Coder<WindowedValue<T>> coder;
    private final Coder windowCoder;

    public StateAndTimerBundleCheckpointHandler(
        TimerInternalsFactory<T> timers,
        StateInternalsFactory<T> states,
        Coder<WindowedValue<T>> coder,
        Coder windowCoder) {
      this.timers = timers;
      this.states = states;
      this.coder = coder;
      this.windowCoder = windowCoder;
    }

    public static boolean isSdfTimer(String id) {
      return id.startsWith(PREFIX);
    }

    @Override
    public void onCheckpoint(ProcessBundleResponse response) {
      int place = 0;
      for (DelayedBundleApplication rest : response.getResidualRootsList()) {
        if (rest.hasApplication()) {
          try {
            keep(PREFIX + ":" + place++, rest);
          } catch (Exception error) {
            throw new RuntimeException("cannot keep what a splittable function put off", error);
          }
        }
      }
    }

    private void keep(String name, DelayedBundleApplication rest) throws Exception {
      WindowedValue<T> value =
          CoderUtils.decodeFromByteArray(coder, rest.getApplication().getElement().toByteArray());
      Instant due = Instant.now().plus(Duration.millis(delayMillis(rest)));
      Instant hold = new Instant(holdMillis(rest));
      for (BoundedWindow window : value.getWindows()) {
        StateNamespace namespace = StateNamespaces.window(windowCoder, window);
        timers
            .timerInternalsForKey(value.getValue())
            .setTimer(namespace, name, "", due, hold, TimeDomain.PROCESSING_TIME);
        states
            .stateInternalsForKey(value.getValue())
            .state(namespace, StateTags.value(name, coder))
            .write(
                WindowedValues.of(
                    value.getValue(), value.getTimestamp(), Collections.singleton(window), value.getPaneInfo()));
      }
    }

    /** To the millisecond, where Beam takes whole seconds only: a source that was told to pause does not spin. */
    private static long delayMillis(DelayedBundleApplication rest) {
      return rest.getRequestedTimeDelay().getSeconds() * 1000 + rest.getRequestedTimeDelay().getNanos() / 1_000_000;
    }

    private static long holdMillis(DelayedBundleApplication rest) {
      return rest.getApplication().getOutputWatermarksMap().values().stream()
          .mapToLong(at -> at.getSeconds() * 1000 + at.getNanos() / 1_000_000)
          .min()
          .orElse(BoundedWindow.TIMESTAMP_MIN_VALUE.getMillis());
    }
  }
}
