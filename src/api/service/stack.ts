import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  StackService,
  type ChangeSchema,
  type GenerationSchema,
  type PlanSchema,
  type PlanStepSchema,
  type ProblemSchema,
  type StackSchema,
} from "../../gen/croft/v1/stack_pb.ts";
import type { GenerationView, Preview, StackView } from "../../reconcile/contract.ts";
import type { Problem } from "../../stack/check/problem.ts";
import { diffGenerations, type SectionDiff } from "../../stack/plan/diff.ts";
import type { Action, Step } from "../../stack/plan/step.ts";
import { serve, type Served } from "../handler.ts";
import type { Needs } from "../need.ts";
import { chunksOf } from "./image.ts";
import { operationMessage } from "./operation.ts";
import { checkSource, givenSource, readSubmission } from "./submission.ts";

type StackNeeds = Pick<Needs, "cloud" | "files" | "plans">;

export function stackService({ cloud: { stacks }, files, plans }: StackNeeds): Served {
  return serve(StackService, {
    async checkStack({ source, color }) {
      const given = givenSource(source);
      const { spec, problems, needs } = await checkSource(given, undefined);
      const { formatProblems } = await import("../../stack/check/problem.ts");
      return {
        stack: spec?.stack ?? "",
        problems: problems.map(problemMessage),
        report: formatProblems(problems, { color }),
        files: [...needs.files],
        env: [...needs.env],
      };
    },
    async planStack({ source, pruneVolumes, color }, call) {
      const { submission, warnings } = await readSubmission(source, files, call);
      const preview = await stacks.preview(submission, { pruneVolumes }, call);
      return planMessage(preview, warnings, plans.plan(preview, { color }));
    },
    async applyStack({ source, pruneVolumes, baseGeneration, pull, build, message }, call) {
      const { submission } = await readSubmission(source, files, call);
      const base = baseGeneration === undefined ? {} : { baseGeneration };
      const options = { pruneVolumes, pull, build, message, author: call.author, ...base };
      return operationMessage(await stacks.apply(submission, options, call));
    },
    async removeStack({ stack, volumes }, call) {
      return operationMessage(await stacks.remove(stack, { volumes }, call));
    },
    async rollbackStack({ stack, generation }, call) {
      const to = generation === 0 ? undefined : generation;
      return operationMessage(await stacks.rollback(stack, to, call.author, call));
    },
    async listStacks() {
      return { stacks: stacks.list().map(stackMessage) };
    },
    async getStack({ stack }) {
      return stackMessage(stacks.get(stack));
    },
    async listGenerations({ stack }, call) {
      return { generations: (await stacks.generations(stack, call)).map(generationMessage) };
    },
    async diffGenerations({ stack, from, to, color }, call) {
      const { before, after } = await stacks.compare(stack, from, to, call);
      const diffs = diffGenerations(before ?? nothing(stack), after);
      return { text: plans.diff(diffs, { color }), changes: diffs.flatMap(changeMessages) };
    },
    async uploadFiles(requests, call) {
      return { digest: await files.put(chunksOf(requests), call) };
    },
  });
}

/** What there was before the first generation. */
function nothing(stack: string) {
  const spec = { stack, networks: {}, volumes: {}, secrets: {}, images: {}, instances: {} };
  return { spec, images: {}, secrets: {}, files: {} };
}

function planMessage(
  { stack, plan, missingImages, baseGeneration }: Preview,
  warnings: readonly Problem[],
  text: string,
): MessageInitShape<typeof PlanSchema> {
  return {
    stack,
    steps: plan.steps.map(stepMessage),
    refusals: [...plan.refusals],
    text,
    missingImages: [...missingImages],
    baseGeneration,
    warnings: warnings.map(problemMessage),
  };
}

function stepMessage({ key, action, cost, why, after }: Step): MessageInitShape<typeof PlanStepSchema> {
  return { key, action: action.kind, subject: subjectOf(action), cost, why, after: [...after] };
}

function subjectOf(action: Action): string {
  if ("instance" in action) return action.instance;
  return "volume" in action ? action.volume : action.network;
}

function problemMessage({
  severity,
  line,
  column,
  key,
  message,
  hint,
}: Problem): MessageInitShape<typeof ProblemSchema> {
  return { severity, line, column, path: key, message, hint };
}

function changeMessages({ subject, kind, changes }: SectionDiff): MessageInitShape<typeof ChangeSchema>[] {
  return kind === "changed" ? changes.map((change) => ({ subject, kind, ...change })) : [{ subject, kind }];
}

function stackMessage(view: StackView): MessageInitShape<typeof StackSchema> {
  const { name, origin, status, generation, wanted, running, updatedMs } = view;
  const updated = timestampFromMs(updatedMs);
  return { name, origin, status, generation, instancesWanted: wanted, instancesRunning: running, updated };
}

function generationMessage(view: GenerationView): MessageInitShape<typeof GenerationSchema> {
  const { createdMs, changes, failure = "", ...generation } = view;
  return { ...generation, created: timestampFromMs(createdMs), changes: [...changes], failure };
}
