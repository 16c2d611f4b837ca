from roster_pipeline.database.engine import Database
from roster_pipeline_tests.sync.scenario import scenario


def test_smoke(database: Database) -> None:
    with scenario(database) as world:
        a = world.school("A")
        world.school("B")
        s = world.students(a, 3)
        world.change.add_section(a, name="x", students=s, teachers=[])
        world.agree(licenses=2, schools=[("A", 1), ("C", None)])
        for row in world.plan().readiness:
            print(row)
        assert world.sync().status == "successful"
        print(world.rows("select topic, item, count, detail from reconcile.readiness"))
        assert 0
