import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { kindMatches } from "../../event/position.ts";
import { EventService } from "../../gen/croft/v1/host_pb.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";

export function eventService({ events }: Pick<Needs, "events">): Served {
  return serve(EventService, {
    async *watchEvents({ kinds, after, noFollow }, call) {
      const last = noFollow ? events.last() : Number.POSITIVE_INFINITY;
      if (noFollow && (after ?? last) === last) return;
      // To know that the last one has passed, all kinds must pass here.
      for await (const event of events.subscribe(noFollow ? [] : kinds, after ?? "now", call)) {
        const { sequence, timeMs, kind, subject, message, detail = {} } = event;
        if (kindMatches(kind, kinds)) yield { sequence, time: timestampFromMs(timeMs), kind, subject, message, detail };
        if (sequence >= last) return;
      }
    },
  });
}
