import type { DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.ts";

/** gRPC health checking. The daemon serves everything or nothing: whoever gets an answer gets SERVING. */
export function serveHealth(router: ConnectRouter, services: readonly DescService[]): void {
  const known = new Set(["", ...services.map(({ typeName }) => typeName)]);
  router.service(Health, {
    check({ service }) {
      if (!known.has(service)) throw new ConnectError(`there is no service ${service}`, Code.NotFound);
      return { status: HealthCheckResponse_ServingStatus.SERVING };
    },
    async *watch({ service }, { signal }) {
      const { SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;
      yield { status: known.has(service) ? SERVING : SERVICE_UNKNOWN };
      // It does not change while we run; the protocol wants the stream open all the same.
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    },
  });
}
